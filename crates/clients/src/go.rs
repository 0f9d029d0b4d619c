//! Go: go-redis.

use crate::ClientEndpoint;
use crate::cache::{Cache, joined};
use crate::literal::{camel, comment, double, pascal};

/// A package with a function for each cache. The dialer is given the address that the cache tells; with TLS the map
/// has the name to verify beside the address to dial, for a cache may also tell addresses.
pub(crate) fn go_redis(caches: &[Cache<'_>]) -> String {
    let has_tls = caches.iter().any(|cache| cache.tls);
    let tls_import = if has_tls { "\t\"crypto/tls\"\n" } else { "" };
    let mut text = format!(
        "// go-redis 9\npackage caches\n\nimport (\n\t\"context\"\n{tls_import}\t\"net\"\n\t\"time\"\n\n\t\
         \"github.com/redis/go-redis/v9\"\n)\n"
    );
    for cache in caches {
        let map = camel(&cache.word, "addresses");
        let value = if cache.tls { "outside" } else { "string" };
        text.push_str(&format!(
            "\n// {}: what the cache calls its nodes, and what they are outside.\nvar {map} = map[string]{value}{{\n",
            comment(cache.name)
        ));
        for inside in cache.inside() {
            let key = double(&joined(&inside.host, inside.port));
            let (node, address) = (inside.node, double(&inside.node.outside()));
            let value = match cache.tls {
                false => address,
                // Of a node without a name the address has to be in the certificate.
                true => {
                    format!("{{{address}, {}}}", double(node.certificate_name().unwrap_or(&inside.host)))
                }
            };
            text.push_str(&format!("\t{key}: {value}, // {}\n", node.label()));
        }
        text.push_str("}\n");
        let seed = |node: &ClientEndpoint| {
            let (host, port) = node.seed();
            double(&joined(host, port))
        };
        let (seeds, client, constructor, options) = match (cache.is_cluster(), cache.primary()) {
            (false, Some(primary)) => (format!("Addr: {}", seed(primary)), "Client", "NewClient", "Options"),
            _ => {
                let lines: String =
                    cache.nodes().iter().map(|node| format!("\t\t\t{},\n", seed(node))).collect();
                let seeds = format!("Addrs: []string{{\n{lines}\t\t}}");
                (seeds, "ClusterClient", "NewClusterClient", "ClusterOptions")
            }
        };
        let dialer = if cache.tls { "dialTLS" } else { "dial" };
        text.push_str(&format!(
            "\nfunc {}() *redis.{client} {{\n\treturn redis.{constructor}(&redis.{options}{{\n\t\t{seeds},\n\t\t\
             Dialer: {dialer}({map}),\n\t}})\n}}\n",
            pascal(&cache.word, "cache"),
        ));
        let replicas = if cache.is_cluster() { Vec::new() } else { cache.replicas() };
        if !replicas.is_empty() {
            let client = |node: &&ClientEndpoint| {
                let options = format!("&redis.Options{{Addr: {}, Dialer: {dialer}({map})}}", seed(node));
                format!("\t\tredis.NewClient({options}), // {}\n", node.label())
            };
            text.push_str(&format!(
                "\nfunc {}() []*redis.Client {{\n\treturn []*redis.Client{{\n{}\t}}\n}}\n",
                pascal(&cache.word, "replicas"),
                replicas.iter().map(client).collect::<String>()
            ));
        }
    }
    if caches.iter().any(|cache| !cache.tls) {
        text.push_str(DIAL);
    }
    if has_tls {
        text.push_str(DIAL_TLS);
    }
    text
}

const DIAL: &str = r"
func dial(known map[string]string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		dialer := net.Dialer{Timeout: 3 * time.Second}
		if outside, mapped := known[address]; mapped {
			address = outside
		}
		return dialer.DialContext(ctx, network, address)
	}
}
";

const DIAL_TLS: &str = r"
type outside struct{ address, name string }

func dialTLS(known map[string]outside) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		node, mapped := known[address]
		if !mapped {
			name, _, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			node = outside{address, name}
		}
		dialer := tls.Dialer{
			NetDialer: &net.Dialer{Timeout: 3 * time.Second},
			Config:    &tls.Config{ServerName: node.name},
		}
		return dialer.DialContext(ctx, network, node.address)
	}
}
";
