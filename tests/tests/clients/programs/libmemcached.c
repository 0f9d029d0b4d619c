// Takes the text of --format libmemcached as it stands; prints how many of its keys each server has.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libmemcached/memcached.h>

#define KEYS 300

static void well(memcached_return_t code, const char *what)
{
    if (memcached_failed(code)) {
        fprintf(stderr, "%s: %s\n", what, memcached_strerror(NULL, code));
        exit(1);
    }
}

int main(int count, char **arguments)
{
    char text[4096];
    size_t length = fread(text, 1, sizeof text - 1, stdin);
    text[strcspn(text, "\n")] = '\0';
    memcached_st *cache = memcached(text, strlen(text));
    if (count != 1 || length == 0 || cache == NULL) {
        fprintf(stderr, "%s: %s is no configuration\n", arguments[0], text);
        return 1;
    }
    char key[32], value[32];
    for (int number = 0; number < KEYS; number++) {
        int keyed = snprintf(key, sizeof key, "key:%d", number), valued = snprintf(value, sizeof value, "%d", number);
        well(memcached_set(cache, key, keyed, value, valued, 0, 0), key);
    }
    for (int number = 0; number < KEYS; number++) {
        int keyed = snprintf(key, sizeof key, "key:%d", number);
        size_t valued;
        uint32_t flags;
        memcached_return_t code;
        char *found = memcached_get(cache, key, keyed, &valued, &flags, &code);
        well(code, key);
        if (atoi(found) != number) {
            fprintf(stderr, "%s is %s\n", key, found);
            return 1;
        }
        free(found);
    }
    memcached_return_t code;
    memcached_stat_st *servers = memcached_stat(cache, NULL, &code);
    well(code, "stats");
    for (uint32_t server = 0; server < memcached_server_count(cache); server++) {
        char *items = memcached_stat_get_value(cache, &servers[server], "curr_items", &code);
        well(code, "curr_items");
        puts(items);
    }
    return 0;
}
