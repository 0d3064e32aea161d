// Command lateen runs a mesh on this machine and is its command line. Called as
// istioctl it is Istio's.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/lateen-mesh/lateen/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Run(ctx, os.Args, cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	stop()
	os.Exit(code)
}
