// Goes on from the text of --format jedis, the class Caches: where it connects for each HOST PORT and each of its seeds.
import java.util.ArrayList;
import java.util.List;
import redis.clients.jedis.DefaultJedisClientConfig;
import redis.clients.jedis.HostAndPort;

public class Main {
    public static void main(String[] arguments) {
        DefaultJedisClientConfig config = Caches.shardsConfig();
        if (config.isSsl() && !config.getSslParameters().getEndpointIdentificationAlgorithm().equals("HTTPS")) {
            throw new AssertionError("the certificate's name is not verified");
        }
        List<HostAndPort> addresses = new ArrayList<>();
        for (int i = 0; i < arguments.length; i += 2) {
            addresses.add(new HostAndPort(arguments[i], Integer.parseInt(arguments[i + 1])));
        }
        addresses.addAll(Caches.shardsNodes());
        for (HostAndPort address : addresses) {
            HostAndPort outside = config.getHostAndPortMapper().getHostAndPort(address);
            System.out.println(outside.getHost() + " " + outside.getPort());
        }
        Caches.myClusterReplicas().forEach(replica -> System.out.println(replica.getHost() + " " + replica.getPort()));
        HostAndPort primary = Caches.myClusterConfig().getHostAndPortMapper().getHostAndPort(Caches.myClusterNode());
        System.out.println(primary.getHost() + " " + primary.getPort());
    }
}
