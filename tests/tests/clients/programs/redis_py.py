# Goes on from the text of --format redis-py or valkey-py, which made shards_cache.
import sys
import time


def settled(act):
    """Retries for the given number of seconds."""
    patience = float(sys.argv[2])
    begin = time.monotonic()
    while True:
        try:
            result = act()
            break
        except Exception:
            if time.monotonic() > begin + patience:
                raise
            time.sleep(0.1)
    # A command that first went to a private address is not lost: it comes back when the connect times out, after 3 s.
    assert time.monotonic() < begin + patience + 2.5
    return result


def write_and_read(value):
    keys = [f"{sys.argv[1]}:{number}" for number in range(300)]
    for key in keys:
        settled(lambda: shards_cache.set(key, value))
    for key in keys:
        assert settled(lambda: shards_cache.get(key)) == value.encode(), key


def read_from_replicas(value):
    for replica in shards_cache.get_replicas():
        shards_cache.execute_command("READONLY", target_nodes=replica)
    for number in range(300):
        key = f"{sys.argv[1]}:{number}"
        replica = shards_cache.get_node_from_key(key, replica=True)
        end = time.monotonic() + 5
        while shards_cache.execute_command("GET", key, target_nodes=replica) != value.encode():
            assert time.monotonic() < end, key


write_and_read("before")
read_from_replicas("before")
print("before", flush=True)
if sys.stdin.readline():
    write_and_read("after")
    print("after", flush=True)
