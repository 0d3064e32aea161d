package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/lateen-mesh/lateen/wellknown"
)

// newIstioctl is the program under the name that Istio's users know.
func newIstioctl() *cobra.Command {
	root := newLateen(Streams{})
	root.Use, root.Short, root.Version = "istioctl", "Istio's command line", wellknown.Version()
	root.ResetCommands()
	root.AddCommand(newVersion(true), newInstall(), newUpgrade(), newUninstall(), newManifest(), newVerify(), newProfile(), newExperimental(), newKubeInject(), newValidate(), newAnalyze())
	root.AddCommand(newProxyConfig(), newProxyStatus())
	for name, aliases := range map[string][]string{
		"admin": {"istiod"}, "bug-report": nil, "create-remote-secret": nil, "dashboard": {"dash", "d"},
		"operator": nil, "remote-clusters": nil, "tag": nil,
		"waypoint": nil, "ztunnel-config": {"zc"},
	} {
		root.AddCommand(&cobra.Command{
			Use: name, Aliases: aliases, Hidden: true, DisableFlagParsing: true,
			RunE: func(*cobra.Command, []string) error {
				return withHint(fmt.Errorf("istioctl %s is not built yet", name),
					"a mesh on this machine: lateen up PATH, lateen status; a proxy's configuration: its admin port, /config_dump")
			},
		})
	}
	return root
}
