// Command lateen-apiserver is the Kubernetes API of a mesh on one machine; see
// package server. The supervisor (`lateen up`) starts it.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/lateen-mesh/lateen/local/apiserver/server"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		if errors.Is(err, syscall.EADDRINUSE) {
			fmt.Fprintln(os.Stderr, "hint: another program has the port; --listen 127.0.0.1:0 takes a free one")
		}
		os.Exit(1)
	}
}

func command() *cobra.Command {
	o := server.Options{Ready: os.Stdout}
	var verbose bool
	c := &cobra.Command{
		Use:           "lateen-apiserver --state DIR",
		Short:         "Serve the Kubernetes API of a mesh on one machine",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(c *cobra.Command, _ []string) error {
			level := slog.LevelInfo
			if verbose {
				level = slog.LevelDebug
			}
			o.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
			return server.Run(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.State, "state", "", "directory of objects and keys")
	f.StringVar(&o.Listen, "listen", "127.0.0.1:0", "loopback address and port for TLS; port 0 picks one")
	f.StringVar(&o.Socket, "socket", "", "unix socket for tools of the same user")
	f.StringVar(&o.Kubeconfig, "kubeconfig", "", "file to write the administrator's kubeconfig to")
	f.StringVar(&o.Kubelet, "kubelet", "", "unix socket on which the node serves exec, attach, logs and port-forward")
	f.StringVar(&o.Definitions, "crds", "", "file or directory of CustomResourceDefinitions to apply at the start")
	f.StringVar(&o.ServiceCIDR, "service-cidr", "10.96.0.0/16", "range of Service addresses")
	f.StringVar(&o.Node, "node", "lateen", "name of the node")
	f.StringVar(&o.NodeAddress, "node-address", "10.244.0.1", "address of the node in the mesh's network")
	f.StringVar(&o.Version, "version", "v1.36.3", "version of the server that clients are told")
	f.BoolVar(&verbose, "verbose", false, "log what controllers and libraries do")
	if err := c.MarkFlagRequired("state"); err != nil {
		panic(err) // the flag above is misspelt
	}
	return c
}
