// Command lateen-node is the inner half of a mesh with pods on one machine: it runs them.
// `lateen up` starts it, in namespaces of its own.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/lateen-mesh/lateen/local/namespace"
	"github.com/lateen-mesh/lateen/local/node"
)

func main() {
	namespace.Child() // does not return where the supervisor asks what this machine permits
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := node.Command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
