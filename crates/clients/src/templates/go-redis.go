// go-redis 9
package caches

import (
	"context"
@if any_tls@
	"crypto/tls"
@endif any_tls@
	"net"
	"time"

	"github.com/redis/go-redis/v9"
)
@each caches@

// @name@: what the cache calls its nodes, and what they are outside.
var @cache@Addresses = map[string]@if tls@outside@endif tls@@unless tls@string@endunless tls@{
@each inside@
@if tls@
	@inside@: {@outside@, @certificate@}, // @label@
@endif tls@
@unless tls@
	@inside@: @outside@, // @label@
@endunless tls@
@endeach inside@
}
@if cluster@

func @Cache@Cache() *redis.ClusterClient {
	return redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: []string{
@each nodes@
			@seed@,
@endeach nodes@
		},
		Dialer: @dial@(@cache@Addresses),
	})
}
@endif cluster@
@unless cluster@
@each primary@

func @Cache@Cache() *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: @seed@,
		Dialer: @dial@(@cache@Addresses),
	})
}
@endeach primary@
@if replicas@

func @Cache@Replicas() []*redis.Client {
	return []*redis.Client{
@each replicas@
		redis.NewClient(&redis.Options{Addr: @seed@, Dialer: @dial@(@cache@Addresses)}), // @label@
@endeach replicas@
	}
}
@endif replicas@
@endunless cluster@
@endeach caches@
@if any_plain@

func dial(known map[string]string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		dialer := net.Dialer{Timeout: 3 * time.Second}
		if outside, mapped := known[address]; mapped {
			address = outside
		}
		return dialer.DialContext(ctx, network, address)
	}
}
@endif any_plain@
@if any_tls@

type outside struct{ address, name string }

func dialTLS(known map[string]outside) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		node, mapped := known[address]
		if !mapped {
			name, _, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			node = outside{address, name}
		}
		dialer := tls.Dialer{
			NetDialer: &net.Dialer{Timeout: 3 * time.Second},
			Config:    &tls.Config{ServerName: node.name},
		}
		return dialer.DialContext(ctx, network, node.address)
	}
}
@endif any_tls@
