package cli

import (
	"github.com/spf13/cobra"

	"github.com/lateen-mesh/lateen/local"
)

// newStatus is `lateen status`: parts, ports, generation, and what is wrong. It
// fails when no mesh runs; what is wrong in the mesh is no failure.
func newStatus() *cobra.Command {
	var state, form string
	cmd := &cobra.Command{
		Use: "status", Short: "Show the mesh of a state directory", Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkForm(form); err != nil {
				return err
			}
			dir, err := stateDir(state)
			if err != nil {
				return err
			}
			st, err := local.ReadStatus(cmd.Context(), dir)
			if st.PID == 0 {
				return err
			}
			if form != "" {
				return encode(cmd.OutOrStdout(), form, st)
			}
			st.Print(cmd.OutOrStdout())
			return nil
		},
	}
	cmd.Flags().StringVar(&state, "state", "", "directory of the mesh (default ~/.local/state/lateen/default)")
	cmd.Flags().StringVarP(&form, "output", "o", "", "json or yaml")
	return cmd
}
