// hiredis 0.14 or later, with TLS 1.0 or later: link with -lhiredis, with TLS also -lhiredis_ssl -lssl -lcrypto.
#include <stddef.h>
#include <string.h>
#include <sys/time.h>

#include <hiredis/hiredis.h>
@if any_tls@
#include <hiredis/hiredis_ssl.h>
#include <openssl/ssl.h>
@endif any_tls@

struct outside {
    const char *inside, *host;
    int port;
    const char *name;
};

static redisContext *outside_connect(const struct outside *node)
{
@if any_tls@
    static SSL_CTX *trust;
@endif any_tls@
    struct timeval connecting = {3, 0}, answering = {10, 0};
    redisContext *context = redisConnectWithTimeout(node->host, node->port, connecting);
@if any_tls@
    if (context == NULL || context->err != 0)
        return context;
    redisSetTimeout(context, answering);
    if (node->name == NULL)
        return context;
    if (trust == NULL) {
        trust = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_default_verify_paths(trust);
        SSL_CTX_set_verify(trust, SSL_VERIFY_PEER, NULL);
    }
    SSL *tls = SSL_new(trust);
    SSL_set_tlsext_host_name(tls, node->name);
    SSL_set1_host(tls, node->name);
    redisInitiateSSL(context, tls); // a failure is in context->err
@endif any_tls@
@unless any_tls@
    if (context != NULL && context->err == 0)
        redisSetTimeout(context, answering);
@endunless any_tls@
    return context;
}

static redisContext *outside_by(const struct outside *node, const char *inside)
{
    while (node->inside != NULL && strcmp(node->inside, inside) != 0)
        node++;
    return node->inside == NULL ? NULL : outside_connect(node);
}
@each caches@

// @name@: what the cache calls its nodes, and what they are outside.
static const struct outside @cache@_addresses[] = {
@each inside@
    {@inside@, @outside@, @port@, @certificate@}, // @label@
@endeach inside@
    {NULL, NULL, 0, NULL},
};

// The node that the cache calls by this; a node that answers "MOVED 866 10.0.1.230:6379" means
// @cache@_connect("10.0.1.230:6379").
redisContext *@cache@_connect(const char *inside)
{
    return outside_by(@cache@_addresses, inside);
}
@unless cluster@
@each primary@

// @label@
redisContext *@cache@_cache(void)
{
    static const struct outside node = {"", @outside@, @port@, @certificate@};
    return outside_connect(&node);
}
@endeach primary@
@endunless cluster@
@endeach caches@
