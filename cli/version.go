package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/lateen-mesh/lateen/wellknown"
)

// A versionInfo is what -o prints, under istioctl's keys.
type versionInfo struct {
	Client struct {
		Version string `json:"version"`
	} `json:"clientVersion"`
}

// newVersion is `version`. --remote and --short are accepted for scripts: only
// the client's version is printed, on one line.
func newVersion() *cobra.Command {
	var form string
	cmd := &cobra.Command{
		Use: "version", Short: "Print the version", Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if form == "" {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "client version: "+wellknown.Version())
				return err
			}
			var v versionInfo
			v.Client.Version = wellknown.Version()
			return encode(cmd.OutOrStdout(), form, v)
		},
	}
	cmd.Flags().StringVarP(&form, "output", "o", "", "json or yaml")
	cmd.Flags().Bool("remote", false, "(accepted, no effect yet)")
	cmd.Flags().BoolP("short", "s", false, "(the version is always one line)")
	return cmd
}
