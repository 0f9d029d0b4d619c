// What a text of 'cachenat endpoints --format stackexchange' needs of StackExchange.Redis 2.6.
using System.Net;
using System.Threading;
using System.Threading.Tasks;

namespace StackExchange.Redis.Configuration
{
    public abstract class Tunnel
    {
        public virtual ValueTask<EndPoint> GetSocketConnectEndpointAsync(
            EndPoint endpoint, CancellationToken cancellationToken) => new ValueTask<EndPoint>(endpoint);

        public abstract override string ToString();
    }
}

namespace StackExchange.Redis
{
    public sealed class EndPointCollection : System.Collections.ObjectModel.Collection<EndPoint>
    {
        public void Add(string host, int port)
        {
            Add(IPAddress.TryParse(host, out var address) ? new IPEndPoint(address, port) : (EndPoint)new DnsEndPoint(host, port));
        }
    }

    public sealed class ConfigurationOptions
    {
        public EndPointCollection EndPoints { get; } = new EndPointCollection();

        public Configuration.Tunnel Tunnel { get; set; }

        public int ConnectTimeout { get; set; }

        public bool Ssl { get; set; }

        public string SslHost { get; set; }
    }
}
