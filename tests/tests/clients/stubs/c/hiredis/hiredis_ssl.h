// What a text of 'cachenat endpoints --format hiredis' needs of hiredis 1.0's hiredis_ssl.
struct ssl_st;

int redisInitiateSSL(redisContext *context, struct ssl_st *ssl);
