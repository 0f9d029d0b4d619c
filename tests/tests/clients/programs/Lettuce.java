// Goes on from the text of --format lettuce, the class Caches: where it connects for each HOST PORT and each of its seeds.
import io.lettuce.core.RedisClient;
import io.lettuce.core.RedisURI;
import io.lettuce.core.cluster.RedisClusterClient;
import io.lettuce.core.resource.ClientResources;
import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.List;

public class Main {
    public static void main(String[] arguments) {
        RedisClusterClient client = Caches.shardsCache();
        List<RedisURI> addresses = new ArrayList<>();
        for (int i = 0; i < arguments.length; i += 2) {
            addresses.add(new RedisURI(arguments[i], Integer.parseInt(arguments[i + 1])));
        }
        client.uris.forEach(addresses::add);
        addresses.forEach(address -> print(client.resources, address));
        RedisClient single = Caches.myClusterCache();
        print(single.resources, single.uri);
        print(single.resources, Caches.myClusterNodes().get(1));
    }

    private static void print(ClientResources resources, RedisURI address) {
        InetSocketAddress outside = (InetSocketAddress) resources.socketAddressResolver().resolve(address);
        System.out.println(outside.getHostString() + " " + outside.getPort());
    }
}
