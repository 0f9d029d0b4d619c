// Goes on from the text of --format hiredis, which has shards_addresses and shards_connect(): follows the cluster by
// the map, a connection a node.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define KEYS 300

static struct connection {
    char inside[128];
    redisContext *context;
    int reads_only;
} connections[64];

// The connection to the node that the cache calls so; NULL if the map does not have it or it can't be had.
static struct connection *connection(const char *inside)
{
    struct connection *one = connections;
    while (one->inside[0] != '\0' && strcmp(one->inside, inside) != 0)
        one++;
    snprintf(one->inside, sizeof one->inside, "%s", inside);
    if (one->context != NULL && one->context->err != 0) {
        redisFree(one->context);
        one->context = NULL;
    }
    if (one->context == NULL) {
        one->context = shards_connect(inside);
        one->reads_only = 0;
    }
    return one->context == NULL || one->context->err != 0 ? NULL : one;
}

// One command, as often sent on as the cluster says so; begins at any node that can be had.
static redisReply *command(const char *format, const char *key, const char *value)
{
    static char at[128];
    for (int tries = 0; tries < 8; tries++) {
        struct connection *node = at[0] != '\0' ? connection(at) : NULL;
        for (const struct outside *one = shards_addresses; node == NULL && one->inside != NULL; one++) {
            node = connection(one->inside);
            snprintf(at, sizeof at, "%s", one->inside);
        }
        redisReply *reply = node == NULL ? NULL : redisCommand(node->context, format, key, value);
        if (reply == NULL) {
            at[0] = '\0';
        } else if (reply->type == REDIS_REPLY_ERROR && sscanf(reply->str, "MOVED %*d %127s", at) == 1) {
            freeReplyObject(reply);
        } else if (reply->type == REDIS_REPLY_ERROR) {
            freeReplyObject(reply);
            return NULL;
        } else {
            return reply;
        }
    }
    return NULL;
}

// Retries for the given number of seconds.
static redisReply *settled(const char *patience, const char *format, const char *key, const char *value)
{
    time_t end = time(NULL) + atoi(patience);
    for (;;) {
        redisReply *reply = command(format, key, value);
        if (reply != NULL)
            return reply;
        if (time(NULL) > end) {
            fprintf(stderr, "%s was neither written nor read\n", key);
            exit(1);
        }
        usleep(100000);
    }
}

static void write_and_read(char **arguments, const char *value)
{
    char key[128];
    for (int number = 0; number < KEYS; number++) {
        snprintf(key, sizeof key, "%s:%d", arguments[1], number);
        freeReplyObject(settled(arguments[2], "SET %s %s", key, value));
    }
    for (int number = 0; number < KEYS; number++) {
        snprintf(key, sizeof key, "%s:%d", arguments[1], number);
        redisReply *reply = settled(arguments[2], "GET %s", key, NULL);
        if (reply->type != REDIS_REPLY_STRING || strcmp(reply->str, value) != 0) {
            fprintf(stderr, "%s is another\n", key);
            exit(1);
        }
        freeReplyObject(reply);
    }
}

// Each key from whichever nodes other than its master have it.
static void read_from_replicas(char **arguments, const char *value)
{
    char key[128];
    for (int number = 0; number < KEYS; number++) {
        snprintf(key, sizeof key, "%s:%d", arguments[1], number);
        int found = 0;
        for (time_t end = time(NULL) + 5; found == 0;) {
            if (time(NULL) > end) {
                fprintf(stderr, "%s never came to a replica\n", key);
                exit(1);
            }
            for (const struct outside *one = shards_addresses; one->inside != NULL; one++) {
                struct connection *node = connection(one->inside);
                redisReply *role = node == NULL ? NULL : redisCommand(node->context, "ROLE");
                if (role == NULL || strcmp(role->element[0]->str, "slave") != 0)
                    continue;
                freeReplyObject(role);
                if (!node->reads_only)
                    freeReplyObject(redisCommand(node->context, "READONLY"));
                node->reads_only = 1;
                redisReply *reply = redisCommand(node->context, "GET %s", key);
                found += reply != NULL && reply->type == REDIS_REPLY_STRING && strcmp(reply->str, value) == 0;
                freeReplyObject(reply);
            }
        }
    }
}

int main(int count, char **arguments)
{
    write_and_read(arguments, "before");
    read_from_replicas(arguments, "before");
    puts("before");
    fflush(stdout);
    if (count > 2 && getchar() != EOF) {
        write_and_read(arguments, "after");
        puts("after");
    }
    return 0;
}
