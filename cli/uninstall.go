package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lateen-mesh/lateen/install/cluster"
)

// An uninstallCommand is one run of `istioctl uninstall`.
type uninstallCommand struct {
	connection
	rendering
	purge, yes, dryRun, verbose bool
}

func newUninstall() *cobra.Command {
	var c uninstallCommand
	cmd := &cobra.Command{
		Use: "uninstall", Short: "Take an installation away", Args: arguments(cobra.NoArgs),
		Long: `Take an installation away: all of them, that of a revision, or what a file describes.

Namespaces, the mesh's kinds and the objects that users made of them stay.`,
		Example: "  istioctl uninstall --purge\n  istioctl uninstall --revision canary -y",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.run(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	set := cmd.Flags()
	c.connection.add(set)
	c.rendering.add(set)
	set.BoolVar(&c.purge, "purge", false, "all installations, of every revision")
	set.BoolVarP(&c.yes, "skip-confirmation", "y", false, "do not ask")
	set.BoolVar(&c.dryRun, "dry-run", false, "say what would be removed, and remove nothing")
	set.BoolVarP(&c.verbose, "verbose", "v", false, "list the objects that are removed")
	return cmd
}

func (c *uninstallCommand) run(ctx context.Context, in io.Reader, out io.Writer) error {
	if !c.purge && c.revision == "" && len(c.files) == 0 {
		return wrongUsage(errors.New("at least one of --revision, --filename and --purge must be there"), "all there is: istioctl uninstall --purge")
	}
	api, err := c.connect()
	if err != nil {
		return err
	}
	if _, err := api.Reach(ctx); err != nil {
		return reachable(err)
	}
	objects, err := c.objects(ctx, api, in)
	if err != nil {
		return err
	}
	if len(objects) == 0 {
		fmt.Fprintln(out, "There is nothing to remove.")
		return nil
	}
	fmt.Fprintf(out, "All Istio resources will be pruned from the cluster: %d objects\n", len(objects))
	if !c.yes && !c.dryRun && !confirm(in, out, "Proceed? (y/N) ") {
		fmt.Fprintln(out, "Cancelled.")
		return exitCode(1)
	}
	if c.dryRun || c.verbose {
		for _, o := range objects {
			fmt.Fprintln(out, "  "+objectName(o))
		}
	}
	if c.dryRun {
		return nil
	}
	if err := api.Delete(ctx, objects); err != nil {
		return err
	}
	fmt.Fprintln(out, "✔ Uninstall complete")
	return nil
}

// objects are what is installed and is to go.
func (c *uninstallCommand) objects(ctx context.Context, api *cluster.Cluster, in io.Reader) ([]*unstructured.Unstructured, error) {
	if c.purge {
		return api.Installed(ctx, "")
	}
	if len(c.files) == 0 {
		return api.Installed(ctx, c.revision)
	}
	machine, err := api.Local(ctx)
	if err != nil {
		return nil, err
	}
	i, err := c.render(in, c.istioNamespace, machine)
	if err != nil {
		return nil, err
	}
	described, err := i.Objects()
	if err != nil {
		return nil, err
	}
	there, err := api.Installed(ctx, i.Revision())
	if err != nil {
		return nil, err
	}
	rest := cluster.Surplus(there, described)
	return slices.DeleteFunc(there, func(o *unstructured.Unstructured) bool { return slices.Contains(rest, o) }), nil
}
