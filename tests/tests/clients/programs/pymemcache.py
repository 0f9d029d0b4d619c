# Goes on from the text of --format pymemcache, which made sessions_cache.
for number in range(300):
    assert sessions_cache.set(f"key:{number}", str(number), noreply=False)
for number in range(300):
    assert sessions_cache.get(f"key:{number}") == str(number).encode()
for client in sessions_cache.clients.values():
    print(client.stats()[b"pid"])
