// Goes on from the text of --format hiredis, which has my_cluster_cache() and my_cluster_addresses.
#include <stdio.h>

int main(void)
{
    redisContext *primary = my_cluster_cache();
    freeReplyObject(redisCommand(primary, "SET greeting hello"));
    for (const struct outside *one = my_cluster_addresses; one->inside != NULL; one++) {
        redisContext *node = my_cluster_connect(one->inside);
        for (int found = 0; !found;) {
            redisReply *reply = redisCommand(node, "GET greeting");
            if (reply == NULL || reply->type == REDIS_REPLY_ERROR)
                return 1;
            found = reply->type == REDIS_REPLY_STRING && strcmp(reply->str, "hello") == 0;
            freeReplyObject(reply);
        }
        redisFree(node);
    }
    redisFree(primary);
    return my_cluster_connect("10.0.9.9:6379") != NULL;
}
