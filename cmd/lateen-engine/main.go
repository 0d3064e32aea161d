// Command lateen-engine is what of a mesh on one machine keeps running: its supervisor, which
// stays in the namespaces of the machine, and the inner half, which runs pods in namespaces
// of its own. `lateen up` starts the first, that the second. They are one program so that
// they have its pages together.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/lateen-mesh/lateen/local"
	"github.com/lateen-mesh/lateen/local/namespace"
	"github.com/lateen-mesh/lateen/local/node"
	"github.com/lateen-mesh/lateen/resident"
)

func main() {
	namespace.Child() // does not return where the supervisor asks what this machine permits
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go resident.Keep(ctx)
	root := &cobra.Command{Use: "lateen-engine", Short: "The parts of lateen up that stay", SilenceErrors: true, SilenceUsage: true}
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(local.Command(), node.Command())
	err := root.ExecuteContext(ctx)
	stop()
	if err != nil {
		local.WriteError(os.Stderr, err)
		os.Exit(1)
	}
}
