package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/install"
)

// maxValidated bounds the files that one command reads.
const maxValidated = 10000

// A validation is `validate`: it judges files as an API server with Istio would, without
// one. What it finds goes to stderr, in the form of istioctl.
type validation struct {
	files     []string
	namespace string
	out       io.Writer
}

func newValidate() *cobra.Command {
	v := &validation{}
	cmd := &cobra.Command{
		Use: "validate -f FILENAME [options]", Aliases: []string{"v"}, Short: "Validate Istio policy and rules files", DisableFlagsInUseLine: true,
		Example: `  istioctl validate -f samples/bookinfo/networking/bookinfo-gateway.yaml
  istioctl validate -f samples/bookinfo/networking
  kubectl get services -o yaml | istioctl validate -f -`,
		Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			v.out = cmd.ErrOrStderr()
			return v.run(cmd.InOrStdin())
		},
	}
	set := cmd.Flags()
	set.StringSliceVarP(&v.files, "filename", "f", nil, `files and directories to validate, "-" is standard input`)
	set.StringVarP(&v.namespace, "namespace", "n", config.DefaultNamespace, "namespace of objects that name none")
	set.StringP("istioNamespace", "i", config.DefaultRootNamespace, "(accepted: nothing of it is read)")
	set.BoolP("referential", "x", true, "(accepted: all is validated)")
	set.Lookup("referential").Hidden = true
	return cmd
}

// run validates all files and says what there is to say, one sentence for each file.
func (v *validation) run(in io.Reader) error {
	if len(v.files) == 0 {
		return wrongUsage(errors.New("you must specify resources by --filename"), "for example -f FILE, -f DIRECTORY, or -f - for standard input")
	}
	warnings := map[string][]string{}
	files, failures := expand(v.files)
	for _, name := range files {
		text, err := readUpTo(in, name, maxDocuments)
		if err != nil {
			failures = append(failures, fmt.Sprintf("cannot read file %q: %v", name, err))
			continue
		}
		for _, p := range config.Validate(v.namespace, name, text) {
			switch {
			case p.Severity == config.Error:
				failures = append(failures, line(p))
			case p.Aside:
				fmt.Fprintf(v.out, "warning: %v\n", p)
			default:
				warnings[name] = append(warnings[name], line(p))
			}
		}
		wrong, doubtful := validateOperators(name, text)
		failures, warnings[name] = append(failures, wrong...), append(warnings[name], doubtful...)
	}
	return v.verdict(files, failures, warnings)
}

// line is a problem in the form of istioctl, Kind/namespace/name first and the place last.
func line(p config.Problem) string {
	var object, field, hint string
	if p.Object != (config.Key{}) {
		object = fmt.Sprintf("%s/%s/%s: ", p.Object.Kind, p.Object.Namespace, p.Object.Name)
	}
	if p.Field != "" {
		field = p.Field + ": "
	}
	if strings.HasPrefix(p.Message, "unknown field") && strings.Contains(p.Message, " in istio.") {
		field = "cannot parse proto message: " // the name of the field is in the message
	}
	if p.Hint != "" {
		hint = "; " + p.Hint
	}
	return fmt.Sprintf("%s%s%s (%s%s)", object, field, p.Message, p.Source, hint)
}

// validateOperators judges the IstioOperators of a text as `istioctl install` would.
func validateOperators(name string, text []byte) (failures, warnings []string) {
	if !bytes.Contains(text, []byte("IstioOperator")) {
		return nil, nil
	}
	documents, _ := config.Documents(name, text) // what is no document has been said
	for _, d := range documents {
		if d.Object.Kind != "IstioOperator" || !strings.HasPrefix(d.APIVersion, "install.istio.io/") {
			continue
		}
		object := fmt.Sprintf("%s/%s/%s: ", d.Object.Kind, d.Object.Namespace, d.Object.Name)
		found, err := install.New(install.Input{Files: [][]byte{d.JSON}, Names: []string{d.Source.String()}})
		if err != nil {
			failures = append(failures, object+err.Error())
			continue
		}
		for _, w := range found.Warnings() {
			warnings = append(warnings, object+w)
		}
	}
	return failures, warnings
}

func (v *validation) verdict(files, failures []string, warnings map[string][]string) error {
	for _, name := range files {
		switch listed := warnings[name]; {
		case len(listed) > 0 && name == "-":
			fmt.Fprint(v.out, points(listed))
		case len(listed) > 0:
			fmt.Fprintf(v.out, "%q has warnings: %s\n", name, points(listed))
		case len(failures) > 0:
		case name == "-":
			fmt.Fprintln(v.out, "validation succeed")
		default:
			fmt.Fprintf(v.out, "%q is valid\n", name)
		}
	}
	if len(failures) == 0 {
		return nil
	}
	number := fmt.Sprintf("%d errors", len(failures))
	if len(failures) == 1 {
		number = "1 error"
	}
	fmt.Fprintf(v.out, "Error: %s occurred:%s\n", number, points(failures))
	return exitCode(1)
}

func points(lines []string) string { return "\n\t* " + strings.Join(lines, "\n\t* ") + "\n" }

// expand names the files of all that is given, each once: of directories those that end
// in .yaml, .yml or .json. failures says what is not there.
func expand(given []string) (files, failures []string) {
	add := func(name string) {
		if !slices.Contains(files, name) && len(files) < maxValidated {
			files = append(files, name)
		}
	}
	for _, name := range given {
		if name == "-" {
			add(name)
			continue
		}
		if fi, err := os.Stat(name); err != nil {
			failures = append(failures, fmt.Sprintf("cannot stat file %q: %v", name, err))
		} else if !fi.IsDir() {
			add(name)
		} else if err := filepath.WalkDir(name, func(path string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)) {
				add(path)
			}
			return err
		}); err != nil {
			failures = append(failures, err.Error())
		}
	}
	return files, failures
}
