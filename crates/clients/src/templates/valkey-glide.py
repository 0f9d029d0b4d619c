# valkey-glide 2.5 or later
from glide import (
@if singles@
    GlideClientConfiguration,
@endif singles@
@if clusters@
    GlideClusterClientConfiguration,
@endif clusters@
    NodeAddress,
)
@each caches@

# @name@: what the cache calls its nodes, and what they are outside.
@if note@
# @note@
@endif note@
@CACHE@_ADDRESSES = {
@each inside@
    (@inside@, @inside_port@): (@outside@, @port@),  # @label@
@endeach inside@
}

# client = await @client@.create(@cache@_cache)
@cache@_cache = @client@Configuration(
    addresses=[
@each nodes@
        NodeAddress(@outside@, @port@),
@endeach nodes@
    ],
    address_resolver=lambda host, port: @CACHE@_ADDRESSES.get((host, port), (host, port)),
@if tls@
    use_tls=True,
@endif tls@
    request_timeout=5000,
)
@endeach caches@
