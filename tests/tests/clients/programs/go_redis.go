// Goes on from the text of --format go-redis, the package caches: asks each HOST:PORT and each of its seeds, through
// its dialer, who it is.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"

	"client/caches"
)

func main() {
	options := caches.ShardsCache().Options()
	for _, address := range append(os.Args[1:], options.Addrs...) {
		connection, err := options.Dialer(context.Background(), "tcp", address)
		if err != nil {
			panic(err)
		}
		fmt.Fprint(connection, "CLUSTER MYID\r\n")
		reader := bufio.NewReader(connection)
		if _, err := reader.ReadString('\n'); err != nil {
			panic(err)
		}
		id, err := reader.ReadString('\n')
		if err != nil {
			panic(err)
		}
		fmt.Println(strings.TrimSpace(id))
		connection.Close()
	}
}
