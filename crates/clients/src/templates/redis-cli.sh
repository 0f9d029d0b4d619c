@each caches@
@if follows@
# @name@: with the lines of --format hosts in /etc/hosts, redis-cli -c follows a MOVED by its name:
@endif follows@
@if has_map@
# @name@: redis-cli -c would follow a MOVED to the private address; without -c, take the node it names:
@each inside@
#   @inside@  -p @port@
@endeach inside@
@endif has_map@
@each nodes@
redis-cli @if follows@-c @endif follows@-h @outside@ -p @port@@if tls@ --tls@endif tls@@if sni@ --sni @sni@@endif sni@  # @label@
@endeach nodes@
@endeach caches@
