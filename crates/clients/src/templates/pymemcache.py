from pymemcache.client.hash import HashClient
@if any_tls@
import ssl
@endif any_tls@
@each caches@

# @name@
@if note@
# @note@
@endif note@
@cache@_cache = HashClient(
    [
@each nodes@
        (@outside@, @port@),  # @label@
@endeach nodes@
    ],
    connect_timeout=3,
    timeout=3,
@if tls@
    tls_context=ssl.create_default_context(),
@endif tls@
)
@endeach caches@
