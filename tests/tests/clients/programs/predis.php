
// Goes on from the text of --format predis, which made $shards_cache and $shards_addresses.
function settled(callable $act)
{
    global $argv;
    for ($end = microtime(true) + $argv[2];; usleep(100000)) {
        try {
            return $act();
        } catch (Predis\PredisException $error) {
            if (microtime(true) > $end) {
                throw $error;
            }
        }
    }
}

function write_and_read($cache, $value)
{
    global $argv;
    for ($number = 0; $number < 300; ++$number) {
        settled(function () use ($cache, $argv, $number, $value) { $cache->set("$argv[1]:$number", $value); });
    }
    for ($number = 0; $number < 300; ++$number) {
        $found = settled(function () use ($cache, $argv, $number) { return $cache->get("$argv[1]:$number"); });
        if ($found !== $value) {
            throw new Exception("$number is $found");
        }
    }
}

// Predis' cluster reads from masters alone; a replica is a client of its own.
function read_from_replicas($addresses, $value)
{
    global $argv;
    $replicas = [];
    foreach ($addresses as $parameters) {
        $client = new Predis\Client($parameters);
        if ($client->executeRaw(['ROLE'])[0] === 'slave') {
            $client->executeRaw(['READONLY']);
            $replicas[] = $client;
        }
    }
    for ($number = 0; $number < 300; ++$number) {
        $end = microtime(true) + 5;
        do {
            if (microtime(true) > $end) {
                throw new Exception("$number never came to a replica");
            }
            $found = array_map(function ($replica) use ($argv, $number) {
                return $replica->executeRaw(['GET', "$argv[1]:$number"]);
            }, $replicas);
        } while (!in_array($value, $found, true));
    }
}

write_and_read($shards_cache, 'before');
read_from_replicas($shards_addresses, 'before');
echo "before\n";
if (fgets(STDIN) !== false) {
    write_and_read($shards_cache, 'after');
    echo "after\n";
}
