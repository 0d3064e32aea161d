// Command pilot-agent runs beside a proxy in its pod, and holds ours in its process.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/lateen-mesh/lateen/agent"
	"github.com/lateen-mesh/lateen/proxy"
)

func main() {
	if err := agent.Command(runProxy).ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func runProxy(args []string) error {
	o, err := proxy.ParseArgs(args)
	if err != nil {
		return err
	}
	return proxy.Serve(o)
}
