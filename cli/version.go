package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lateen-mesh/lateen/install/cluster"
	"github.com/lateen-mesh/lateen/wellknown"
)

// A versionInfo is what -o prints, under istioctl's keys.
type versionInfo struct {
	Client struct {
		Version string `json:"version"`
	} `json:"clientVersion"`
	Mesh []componentVersion `json:"meshVersion,omitempty"`
	Data []proxyVersion     `json:"dataPlaneVersion,omitempty"`
}

// A componentVersion is that of one control plane.
type componentVersion struct {
	Component string `json:"Component"`
	Revision  string `json:"Revision"`
	Info      struct {
		Version string `json:"version"`
	} `json:"Info"`
}

// A proxyVersion is that of one proxy.
type proxyVersion struct {
	ID      string `json:"ID"`
	Version string `json:"IstioVersion"`
}

// newVersion is `version` of both programs. That of lateen is about itself, that of istioctl
// asks the mesh too where there is one.
func newVersion(asksMesh bool) *cobra.Command {
	var c connection
	var form, revision string
	var remote bool
	cmd := &cobra.Command{
		Use: "version", Short: "Print the version", Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkForm(form); err != nil {
				return err
			}
			var v versionInfo
			v.Client.Version = wellknown.Version()
			if remote {
				err := v.ask(cmd.Context(), &c, revision)
				if err != nil && cmd.Flags().Changed("remote") {
					return err
				}
				if err != nil { // what was not asked for does not fail
					fmt.Fprintln(cmd.ErrOrStderr(), "the mesh was not asked:", err)
					remote = false
				}
			}
			if form != "" {
				return encode(cmd.OutOrStdout(), form, v)
			}
			v.print(cmd.OutOrStdout(), remote, c.istioNamespace)
			return nil
		},
	}
	set := cmd.Flags()
	set.StringVarP(&form, "output", "o", "", "json or yaml")
	set.BoolP("short", "s", false, "(the version of a part is always one line)")
	set.BoolVar(&remote, "remote", asksMesh, "ask the mesh too")
	if asksMesh {
		c.add(set)
		set.StringVarP(&revision, "revision", "r", "", "only control planes of this revision")
	}
	return cmd
}

// ask finds the versions of all control planes and of the proxies that they know. Where there
// is no API, or no mesh in it, there is nothing to ask.
func (v *versionInfo) ask(ctx context.Context, c *connection, revision string) error {
	api, err := c.connect()
	if err != nil {
		return err
	}
	if _, err := api.Reach(ctx); err != nil {
		return reachable(err)
	}
	planes, err := api.ControlPlanes(ctx, c.istioNamespace, revision)
	if err != nil {
		return err
	}
	for _, p := range planes {
		v.add(p)
	}
	return nil
}

func (v *versionInfo) add(p cluster.ControlPlane) {
	component := componentVersion{Component: "pilot", Revision: p.Revision}
	component.Info.Version = p.Version
	v.Mesh = append(v.Mesh, component)
	for _, proxy := range p.Proxies {
		v.Data = append(v.Data, proxyVersion{proxy.ID, proxy.Version})
	}
}

// print writes a line a part. Control planes of one version are one line; versions of proxies
// are counted.
func (v *versionInfo) print(w io.Writer, remote bool, namespace string) {
	fmt.Fprintln(w, "client version: "+v.Client.Version)
	if !remote {
		return
	}
	if len(v.Mesh) == 0 {
		fmt.Fprintf(w, "Istio is not present in the cluster: no running Istio pods in namespace %q\n", namespace)
		return
	}
	var planes []string
	for _, p := range v.Mesh {
		planes = append(planes, p.Info.Version)
	}
	slices.Sort(planes)
	fmt.Fprintln(w, "control plane version: "+strings.Join(slices.Compact(planes), ", "))
	if len(v.Data) == 0 {
		fmt.Fprintln(w, "data plane version: none")
		return
	}
	counts := map[string]int{}
	var versions []string
	for _, p := range v.Data {
		version := cmp.Or(p.Version, "unknown")
		if counts[version]++; counts[version] == 1 {
			versions = append(versions, version)
		}
	}
	slices.Sort(versions)
	for i, version := range versions {
		word := "proxies"
		if counts[version] == 1 {
			word = "proxy"
		}
		versions[i] = fmt.Sprintf("%s (%d %s)", version, counts[version], word)
	}
	fmt.Fprintln(w, "data plane version: "+strings.Join(versions, ", "))
}
