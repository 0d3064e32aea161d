// Command istiod is the control plane: configuration in, xDS out. It takes the
// flags of the original's pilot-discovery.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/logging"
	"github.com/lateen-mesh/lateen/resident"
	"github.com/lateen-mesh/lateen/wellknown"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go resident.Keep(ctx)
	if err := newCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use: "istiod", Short: "The control plane of a mesh", SilenceErrors: true, SilenceUsage: true, Version: wellknown.Version(),
	}
	root.AddCommand(newDiscovery(), newRequest(), &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), wellknown.Version()) },
	})
	return root
}

// newDiscovery is `istiod discovery`: run until a signal.
func newDiscovery() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use: "discovery", Short: "Run the control plane", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logging.New(logging.Options{Output: cmd.OutOrStdout(), Levels: f.levels, JSON: f.json})
			if err != nil {
				return fmt.Errorf("--log_output_level: %w", err)
			}
			f.warn(cmd.Flags(), log.Scope(logging.DefaultScope))
			o, err := f.options(log)
			if err != nil {
				return err
			}
			server, err := control.New(o)
			if err != nil {
				return err
			}
			if unused := log.Unused(); len(unused) > 0 {
				log.Scope(logging.DefaultScope).Warn("--log_output_level names scopes that do not exist", "scopes", unused)
			}
			log.Scope(logging.DefaultScope).Info("istiod", "version", wellknown.Version(), "grpc", server.GRPCAddr(), "http", server.HTTPAddrs(), "https", server.HTTPSAddr(), "secure", server.SecureGRPCAddr())
			return server.Run(cmd.Context())
		},
	}
	f.add(cmd.Flags())
	return cmd
}
