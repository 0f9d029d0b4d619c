// Goes on from the text of --format redisson, the class Caches: where it connects for each HOST PORT and each of its seeds.
import java.util.ArrayList;
import java.util.List;
import org.redisson.config.ClusterServersConfig;
import org.redisson.misc.RedisURI;

public class Main {
    public static void main(String[] arguments) {
        ClusterServersConfig servers = Caches.shardsCache().useClusterServers();
        String scheme = servers.getNodeAddresses().get(0).split("://")[0];
        List<RedisURI> addresses = new ArrayList<>();
        for (int i = 0; i < arguments.length; i += 2) {
            addresses.add(new RedisURI(scheme + "://" + arguments[i] + ":" + arguments[i + 1]));
        }
        servers.getNodeAddresses().forEach(address -> addresses.add(new RedisURI(address)));
        for (RedisURI address : addresses) {
            print(servers.getNatMapper().map(address), scheme);
        }
        for (String address : Caches.myClusterCache().useReplicatedServers().getNodeAddresses()) {
            print(new RedisURI(address), "redis");
        }
    }

    private static void print(RedisURI outside, String scheme) {
        if (!outside.getScheme().equals(scheme)) {
            throw new AssertionError(outside.getScheme());
        }
        System.out.println(outside.getHost() + " " + outside.getPort());
    }
}
