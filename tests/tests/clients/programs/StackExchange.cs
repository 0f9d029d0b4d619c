// Goes on from the text of --format stackexchange, the class Caches: where it connects for each HOST PORT and each of
// its seeds.
using System;
using System.Net;
using System.Threading;
using StackExchange.Redis;

public static class Program
{
    public static void Main(string[] arguments)
    {
        var shards = Caches.ShardsCache();
        var addresses = new EndPointCollection();
        for (var i = 0; i < arguments.Length; i += 2)
        {
            addresses.Add(arguments[i], int.Parse(arguments[i + 1]));
        }
        foreach (var seed in shards.EndPoints)
        {
            addresses.Add(seed);
        }
        foreach (var address in addresses)
        {
            Print(shards, address);
        }
        foreach (var seed in Caches.MyClusterCache().EndPoints)
        {
            Print(Caches.MyClusterCache(), seed);
        }
    }

    private static void Print(ConfigurationOptions options, EndPoint address)
    {
        var outside = (IPEndPoint)options.Tunnel.GetSocketConnectEndpointAsync(address, CancellationToken.None).Result;
        Console.WriteLine($"{outside.Address} {outside.Port}");
    }
}
