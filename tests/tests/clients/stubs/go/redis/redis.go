// Package redis is what a text of 'cachenat endpoints --format go-redis' needs of go-redis 9.
package redis

import (
	"context"
	"net"
)

type Options struct {
	Addr   string
	Dialer func(ctx context.Context, network, addr string) (net.Conn, error)
}

type ClusterOptions struct {
	Addrs  []string
	Dialer func(ctx context.Context, network, addr string) (net.Conn, error)
}

type Client struct{ options *Options }

type ClusterClient struct{ options *ClusterOptions }

func NewClient(options *Options) *Client { return &Client{options} }

func NewClusterClient(options *ClusterOptions) *ClusterClient { return &ClusterClient{options} }

func (c *Client) Options() *Options { return c.options }

func (c *ClusterClient) Options() *ClusterOptions { return c.options }
