package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/install"
	"github.com/lateen-mesh/lateen/install/cluster"
)

// newManifest is `istioctl manifest` with its commands.
func newManifest() *cobra.Command {
	cmd := &cobra.Command{Use: "manifest", Short: "Render installations", Args: cobra.ArbitraryArgs, RunE: noCommand}
	older := newInstall() // where `install` was before it stood by itself
	older.Hidden = true
	cmd.AddCommand(newGenerate(), older)
	return cmd
}

func newGenerate() *cobra.Command {
	var c connection
	var r rendering
	var directory string
	var specific bool
	cmd := &cobra.Command{
		Use: "generate", Short: "Print the objects of an installation", Args: arguments(cobra.NoArgs),
		Long: `Print the objects of an installation as YAML for kubectl apply.

It is what a cluster gets, also where a mesh runs on this machine; --cluster-specific
renders for the API that is reached.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var machine *install.Local
			if specific {
				api, err := c.connect()
				if err != nil {
					return err
				}
				if machine, err = api.Local(cmd.Context()); err != nil {
					return err
				}
			}
			i, err := r.render(cmd.InOrStdin(), c.istioNamespace, machine)
			if err != nil {
				return err
			}
			for _, w := range i.Warnings() {
				fmt.Fprintln(cmd.ErrOrStderr(), "! "+w)
			}
			if directory != "" {
				return writeManifests(directory, i)
			}
			text, err := i.Manifest()
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
	c.add(cmd.Flags())
	r.add(cmd.Flags())
	cmd.Flags().StringVarP(&directory, "output", "o", "", "directory for one file a component, in place of standard output")
	cmd.Flags().BoolVar(&specific, "cluster-specific", false, "render for the API that is reached")
	cmd.Flags().Bool("dry-run", false, "(accepted: nothing is installed)")
	return cmd
}

// writeManifests writes a file a component.
func writeManifests(directory string, i *install.Installation) error {
	if err := os.MkdirAll(directory, 0o750); err != nil {
		return err
	}
	definitions, err := i.Definitions()
	if err != nil {
		return err
	}
	for n, component := range i.Components() {
		objects := component.Objects
		if n == 0 {
			objects = append(definitions, objects...)
		}
		var text bytes.Buffer
		for _, o := range objects {
			content, err := yaml.Marshal(o.Object)
			if err != nil {
				return err
			}
			text.Write(content)
			text.WriteString("---\n")
		}
		name := strings.ReplaceAll(strings.ToLower(component.Title), " ", "-") + ".yaml"
		if err := os.WriteFile(filepath.Join(directory, name), text.Bytes(), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// newVerify is `istioctl verify-install`.
func newVerify() *cobra.Command {
	var c connection
	var r rendering
	cmd := &cobra.Command{
		Use: "verify-install", Short: "Check that all of an installation is there and runs", Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			api, machine, err := c.open(ctx)
			if err != nil {
				return err
			}
			i, err := r.render(cmd.InOrStdin(), c.istioNamespace, machine)
			if err != nil {
				return err
			}
			return verifyInstalled(ctx, api, i, cmd.OutOrStdout())
		},
	}
	c.add(cmd.Flags())
	r.add(cmd.Flags())
	return cmd
}

// verifyInstalled prints a line for each object of an installation and fails where one is
// missing or does not run.
func verifyInstalled(ctx context.Context, api *cluster.Cluster, i *install.Installation, out io.Writer) error {
	definitions, err := i.Definitions()
	if err != nil {
		return err
	}
	objects, err := i.Objects()
	if err != nil {
		return err
	}
	all := append(definitions, objects...)
	bad, err := api.Unhealthy(ctx, all)
	if err != nil {
		return err
	}
	counts := map[string]int{}
	for _, o := range all {
		name := strings.TrimSuffix(o.GetName()+"."+o.GetNamespace(), ".")
		if why, ok := bad[o]; ok {
			fmt.Fprintf(out, "✘ %s: %s: %s\n", o.GetKind(), name, why)
			continue
		}
		counts[o.GetKind()]++
		fmt.Fprintf(out, "✔ %s: %s checked successfully\n", o.GetKind(), name)
	}
	fmt.Fprintf(out, "Checked %d custom resource definitions\nChecked %d Istio Deployments\n", counts["CustomResourceDefinition"], counts["Deployment"])
	if len(bad) > 0 {
		return withHint(errors.New("Istio installation failed, incomplete or does not match what was asked for"), //nolint:staticcheck // a name begins it
			"install what is missing with the same flags: istioctl install")
	}
	fmt.Fprintln(out, "✔ Istio is installed and verified successfully")
	return nil
}
