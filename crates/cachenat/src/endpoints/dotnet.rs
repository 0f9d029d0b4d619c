//! .NET: StackExchange.Redis.

use super::cache::{Cache, joined};
use super::literal::{comment, double, pascal};

/// A class with the options for each cache. A tunnel only changes where a socket connects to.
pub(super) fn stackexchange(caches: &[Cache<'_>]) -> String {
    let mut text = HEAD.to_owned();
    for cache in caches {
        let map = pascal(cache.name, "addresses");
        text.push_str(&format!(
            "    // {}: what the cache calls its nodes, and what they are outside.\n    \
             private static readonly Dictionary<string, IPEndPoint> {map} = new()\n    {{\n",
            comment(cache.name)
        ));
        for inside in cache.inside() {
            let (key, node) = (double(&joined(&inside.host, inside.port)), inside.node);
            text.push_str(&format!(
                "        [{key}] = new IPEndPoint(IPAddress.Parse({}), {}), // {}\n",
                double(&node.public_host),
                node.public_port,
                node.label()
            ));
        }
        text.push_str(&format!(
            "    }};\n\n    public static ConfigurationOptions {}() => new()\n    {{\n        EndPoints =\n        {{\n",
            pascal(cache.name, "cache")
        ));
        for node in cache.nodes() {
            let (host, port) = node.seed();
            text.push_str(&format!("            {{ {}, {port} }},\n", double(host)));
        }
        text.push_str(&format!(
            "        }},\n        Tunnel = new Outside({map}),\n        ConnectTimeout = 3000,\n"
        ));
        if cache.tls {
            text.push_str("        Ssl = true,\n");
            if let Some(name) = cache.primary().and_then(|node| node.certificate_name()) {
                text.push_str(&format!(
                    "        // A cluster tells StackExchange.Redis addresses, so it has to be told the name to verify.\n        \
                     SslHost = {},\n",
                    double(name)
                ));
            }
        }
        text.push_str("    };\n\n");
    }
    text + TUNNEL
}

const HEAD: &str = "\
// StackExchange.Redis 2.6 or later: ConnectionMultiplexer.ConnectAsync(Caches....Cache())
#nullable enable
using System.Collections.Generic;
using System.Net;
using System.Threading;
using System.Threading.Tasks;
using StackExchange.Redis;
using StackExchange.Redis.Configuration;

public static class Caches
{
";

const TUNNEL: &str = r#"    private sealed class Outside : Tunnel
    {
        private readonly Dictionary<string, IPEndPoint> addresses;

        public Outside(Dictionary<string, IPEndPoint> addresses) => this.addresses = addresses;

        public override ValueTask<EndPoint?> GetSocketConnectEndpointAsync(
            EndPoint endpoint, CancellationToken cancellationToken)
        {
            var key = endpoint is DnsEndPoint name ? $"{name.Host}:{name.Port}" : endpoint.ToString()!;
            return new(addresses.TryGetValue(key, out var outside) ? outside : endpoint);
        }

        public override string ToString() => "cachenat";
    }
}
"#;
