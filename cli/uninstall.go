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
	purge, yes, dryRun bool
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
	set.BoolP("verbose", "v", false, "(the objects that are removed are always listed)")
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
	if c.dryRun {
		for _, o := range objects {
			fmt.Fprintf(out, "Would remove %s\n", objectName(o))
		}
		return nil
	}
	fmt.Fprintln(out, c.announcement())
	if !c.yes && !confirm(in, out, "Proceed? (y/N) ") {
		fmt.Fprintln(out, "Cancelled.")
		return exitCode(1)
	}
	if err := api.Delete(ctx, objects); err != nil {
		return err
	}
	for _, o := range objects {
		fmt.Fprintf(out, "  Removed %s.\n", objectName(o))
	}
	fmt.Fprintln(out, "✔ Uninstall complete")
	return nil
}

// announcement is what is said before the question.
func (c *uninstallCommand) announcement() string {
	switch {
	case c.purge:
		return "All Istio resources will be pruned from the cluster"
	case len(c.files) == 0:
		return fmt.Sprintf("All Istio resources of revision %s will be pruned from the cluster", c.revision)
	}
	return "The Istio resources that the files describe will be pruned from the cluster"
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
