//! C: hiredis and libmemcached.

use crate::cache::{Cache, joined};
use crate::literal::{comment, double, snake};
use crate::{ClientEndpoint, FormatError};

/// hiredis' connections. It knows no cluster, so the program itself follows a `MOVED`, by the map.
pub(crate) fn hiredis(caches: &[Cache<'_>]) -> String {
    let has_tls = caches.iter().any(|cache| cache.tls);
    let (header, connect) = if has_tls { (TLS_HEADER, CONNECT_TLS) } else { ("", CONNECT) };
    let mut text = [HEADER, header, NODE, connect, BY].concat();
    for cache in caches {
        let map = snake(&cache.word, "addresses");
        text.push_str(&format!(
            "\n// {}: what the cache calls its nodes, and what they are outside.\n\
             static const struct outside {map}[] = {{\n",
            comment(cache.name)
        ));
        for inside in cache.inside() {
            text.push_str(&format!(
                "    {{{}, {}}}, // {}\n",
                double(&joined(&inside.host, inside.port)),
                outside(inside.node),
                inside.node.label()
            ));
        }
        let connect = snake(&cache.word, "connect");
        text.push_str(&format!(
            "    {{NULL, NULL, 0, NULL}},\n}};\n\n\
             // The node that the cache calls by this; a node that answers \"MOVED 866 10.0.1.230:6379\" means\n\
             // {connect}(\"10.0.1.230:6379\").\n\
             redisContext *{connect}(const char *inside)\n{{\n    return outside_by({map}, inside);\n}}\n"
        ));
        if let (false, Some(primary)) = (cache.is_cluster(), cache.primary()) {
            text.push_str(&format!(
                "\n// {}\nredisContext *{}(void)\n{{\n    static const struct outside node = {{\"\", {}}};\n    \
                 return outside_connect(&node);\n}}\n",
                primary.label(),
                snake(&cache.word, "cache"),
                outside(primary)
            ));
        }
    }
    text
}

/// Where to connect, and with TLS the name that the certificate has to carry: one that can't be verified fails.
fn outside(node: &ClientEndpoint) -> String {
    let name = node.certificate_name().or(node.tls.then_some(node.public_host.as_str()));
    let name = name.map_or_else(|| "NULL".to_owned(), double);
    format!("{}, {}, {name}", double(&node.public_host), node.public_port)
}

/// libmemcached's configuration string, which `memcached()` and what builds on it take.
///
/// # Errors
///
/// [`FormatError::NoTls`]
pub(crate) fn libmemcached(caches: &[Cache<'_>]) -> Result<String, FormatError> {
    if let Some(cache) = caches.iter().find(|cache| cache.tls) {
        return Err(FormatError::NoTls { library: "libmemcached", name: cache.name.to_owned() });
    }
    let line = |cache: &Cache<'_>| {
        let servers = cache.all().iter().map(|node| format!("--SERVER={}", node.outside()));
        servers.collect::<Vec<String>>().join(" ") + "\n"
    };
    Ok(caches.iter().map(line).collect())
}

const HEADER: &str = "\
// hiredis 0.14 or later, with TLS 1.0 or later: link with -lhiredis, with TLS also -lhiredis_ssl -lssl -lcrypto.
#include <stddef.h>
#include <string.h>
#include <sys/time.h>

#include <hiredis/hiredis.h>
";

const TLS_HEADER: &str = "\
#include <hiredis/hiredis_ssl.h>
#include <openssl/ssl.h>
";

const NODE: &str = "
struct outside {
    const char *inside, *host;
    int port;
    const char *name;
};

static redisContext *outside_connect(const struct outside *node)
{
";

const CONNECT: &str = "    \
    struct timeval connecting = {3, 0}, answering = {10, 0};
    redisContext *context = redisConnectWithTimeout(node->host, node->port, connecting);
    if (context != NULL && context->err == 0)
        redisSetTimeout(context, answering);
    return context;
}
";

// hiredis_ssl's own context checks who signed the certificate, but no name.
const CONNECT_TLS: &str = "    \
    static SSL_CTX *trust;
    struct timeval connecting = {3, 0}, answering = {10, 0};
    redisContext *context = redisConnectWithTimeout(node->host, node->port, connecting);
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
    return context;
}
";

const BY: &str = "
static redisContext *outside_by(const struct outside *node, const char *inside)
{
    while (node->inside != NULL && strcmp(node->inside, inside) != 0)
        node++;
    return node->inside == NULL ? NULL : outside_connect(node);
}
";
