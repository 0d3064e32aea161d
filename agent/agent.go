// Package agent is what runs beside a proxy in its pod: program pilot-agent, with our proxy in
// its process or a stock Envoy as its child.
//
//	pilot-agent proxy sidecar|router     the agent and its proxy
//	pilot-agent wait                     until the proxy is ready: holds the application back
//	pilot-agent request GET stats        the proxy's admin API, from within the container
//	pilot-agent istio-iptables           redirects the pod's traffic to the proxy
//
// What `proxy` does is in the packages below:
//
//	environment, annotations, mesh file ─► bootstrap ─► proxy
//	control plane ◄── relay ──► proxy            names ◄── relay: DNS of the pod
//	status: port 15020                           secrets: certificates by SDS
//	health: of an application that no kubelet looks after
//
// The life of agent and proxy is one: when the proxy ends, the agent ends with it, and the
// kubelet starts both again, counts that, and shows it to users. A proxy that was restarted
// inside the container would hide what keeps killing it.
package agent

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/lateen-mesh/lateen/wellknown"
)

// Command is the `pilot-agent` command line; run is the proxy that it holds.
func Command(run Proxy) *cobra.Command {
	cmd := &cobra.Command{
		Use:           "pilot-agent",
		Short:         "Runs beside a proxy in its pod",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.AddCommand(newProxyCommand(run), newWaitCommand(), newRequestCommand(), newRedirectCommand(), newCleanCommand(), newVersionCommand())
	return cmd
}

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), wellknown.Build()) },
	}
}
