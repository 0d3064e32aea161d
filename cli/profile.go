package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/install"
)

// newProfile is `istioctl profile` with its commands.
func newProfile() *cobra.Command {
	cmd := &cobra.Command{Use: "profile", Short: "Show the profiles that installations begin with", Args: cobra.ArbitraryArgs, RunE: noCommand}
	cmd.AddCommand(&cobra.Command{
		Use: "list", Short: "List the profiles", Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "Istio configuration profiles:\n    %s\n", strings.Join(install.Profiles(), "\n    "))
			return err
		},
	}, newProfileDump(), newProfileDiff())
	return cmd
}

func newProfileDump() *cobra.Command {
	var r rendering
	var form, path string
	cmd := &cobra.Command{
		Use: "dump [PROFILE]", Short: "Print a profile with every value there is", Args: arguments(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.set = append(profileSetting(args), r.set...)
			i, err := r.render(cmd.InOrStdin(), "", nil)
			if err != nil {
				return err
			}
			if form == "flags" {
				for _, line := range i.Settings() {
					fmt.Fprintln(cmd.OutOrStdout(), line)
				}
				return nil
			}
			text, err := i.Operator()
			if err != nil {
				return err
			}
			return printPart(cmd.OutOrStdout(), text, path, form)
		},
	}
	r.add(cmd.Flags())
	cmd.Flags().StringVarP(&form, "output", "o", "yaml", "yaml, json or flags")
	cmd.Flags().StringVarP(&path, "config-path", "p", "", "only what is at this path of the spec: components.pilot")
	return cmd
}

func profileSetting(args []string) []string {
	if len(args) == 0 {
		return nil
	}
	return []string{"profile=" + args[0]}
}

// printPart prints an IstioOperator, or what is at a path of its spec.
func printPart(out io.Writer, text []byte, path, form string) error {
	var tree any
	if err := yaml.Unmarshal(text, &tree); err != nil {
		return err
	}
	if path != "" {
		tree = tree.(map[string]any)["spec"]
		for key := range strings.SplitSeq(path, ".") {
			m, _ := tree.(map[string]any)
			var ok bool
			if tree, ok = m[key]; !ok {
				return fmt.Errorf("--config-path %s: there is no %s", path, key)
			}
		}
	}
	return encode(out, form, tree)
}

func newProfileDiff() *cobra.Command {
	cmd := &cobra.Command{
		Use: "diff PROFILE PROFILE", Short: "Show in what two profiles differ", Args: arguments(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			var sides [2][]string
			for n := range sides {
				i, err := install.New(install.Input{Profile: args[n]})
				if err != nil {
					return err
				}
				sides[n] = slices.DeleteFunc(i.Settings(), func(line string) bool { return strings.HasPrefix(line, "profile=") })
			}
			lines := difference(sides[0], sides[1])
			if len(lines) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "Profiles are identical")
				return nil
			}
			fmt.Fprintln(cmd.OutOrStdout(), strings.Join(lines, "\n"))
			return exitCode(1)
		},
	}
	return cmd
}

// difference marks the lines of two sorted lists that are in one of them only.
func difference(a, b []string) []string {
	var lines []string
	for _, line := range a {
		if _, both := slices.BinarySearch(b, line); !both {
			lines = append(lines, "- "+line)
		}
	}
	for _, line := range b {
		if _, both := slices.BinarySearch(a, line); !both {
			lines = append(lines, "+ "+line)
		}
	}
	slices.SortStableFunc(lines, func(x, y string) int { return strings.Compare(key(x), key(y)) })
	return lines
}

func key(line string) string {
	k, _, _ := strings.Cut(line[2:], "=")
	return k
}
