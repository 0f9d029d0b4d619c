# @versions@
@if singles@
from @module@ import @client@
@endif singles@
@if clusters@
from @module@.cluster import ClusterNode, @cluster_client@
@endif clusters@
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
@if cluster@

@cache@_cache = @cluster_client@(
    startup_nodes=[
@each nodes@
        ClusterNode(@outside@, @port@),
@endeach nodes@
    ],
    address_remap=lambda address: @CACHE@_ADDRESSES.get(address, address),
    reinitialize_steps=1,  # at a MOVED, ask for all slots anew: those go through address_remap, it does not
    socket_connect_timeout=3, socket_timeout=10,
@if tls@
    ssl=True, ssl_cert_reqs="required", ssl_check_hostname=True,
@endif tls@
)
@endif cluster@
@unless cluster@
@each primary@

@cache@_cache = @client@(host=@outside@, port=@port@, socket_connect_timeout=3, socket_timeout=10@if tls@, ssl=True, ssl_cert_reqs="required", ssl_check_hostname=True@endif tls@)  # @label@
@endeach primary@
@if replicas@
@cache@_replicas = [
@each replicas@
    @client@(host=@outside@, port=@port@, socket_connect_timeout=3, socket_timeout=10@if tls@, ssl=True, ssl_cert_reqs="required", ssl_check_hostname=True@endif tls@),  # @label@
@endeach replicas@
]
@endif replicas@
@endunless cluster@
@endeach caches@
