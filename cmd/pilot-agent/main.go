// Command pilot-agent runs beside a proxy in its pod, and holds ours in its process.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/lateen-mesh/lateen/agent"
	"github.com/lateen-mesh/lateen/proxy"
)

func main() {
	if err := agent.Command(runProxy).ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// runProxy is our proxy. The agent says when it drains and when it ends; only the signal that
// has it open its logs again is its own.
func runProxy(ctx context.Context, args []string) error {
	o, err := proxy.ParseArgs(args)
	if err != nil {
		return err
	}
	b, err := proxy.Load(o.ConfigPath, o.ConfigYAML, o.AllowUnknownStatic)
	if err != nil {
		return fmt.Errorf("error initializing configuration '%s': %w", o.ConfigPath, err)
	}
	reopen := make(chan struct{}, 1)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	defer signal.Stop(signals)
	go func() {
		for {
			select {
			case <-signals:
				select {
				case reopen <- struct{}{}:
				default: // one is waiting already
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	o.Stop, o.Reopen = ctx.Done(), reopen
	return proxy.Run(context.Background(), b, o, os.Stderr)
}
