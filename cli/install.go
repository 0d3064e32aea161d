package cli

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lateen-mesh/lateen/install"
	"github.com/lateen-mesh/lateen/install/cluster"
	"github.com/lateen-mesh/lateen/wellknown"
)

// A rendering is the flags that say what is to be installed.
type rendering struct {
	files, set []string
	revision   string
	manifests  string
	force      bool
}

func (r *rendering) add(set *pflag.FlagSet) {
	set.StringArrayVarP(&r.files, "filename", "f", nil, "file of kind IstioOperator, \"-\" is standard input; later ones go over earlier ones")
	set.StringArrayVarP(&r.set, "set", "s", nil, "PATH=VALUE over the files: meshConfig.*, values.*, components.*, profile, hub, tag …")
	set.StringVarP(&r.revision, "revision", "r", "", "revision of the control plane, beside others")
	set.StringVarP(&r.manifests, "manifests", "d", "", "(accepted: the manifests are in the program)")
	set.StringVar(&r.manifests, "charts", "", "(accepted: the manifests are in the program)")
	set.BoolVar(&r.force, "force", false, "warn of fields that there are not, in place of refusing them")
}

// render renders the installation; local is the machine's, nil for a cluster.
func (r *rendering) render(in io.Reader, namespace string, machine *install.Local) (*install.Installation, error) {
	input := install.Input{Local: machine, Force: r.force}
	for _, name := range r.files {
		content, err := readFile(in, name)
		if err != nil {
			return nil, err
		}
		input.Files, input.Names = append(input.Files, content), append(input.Names, name)
	}
	if namespace != "" && namespace != "istio-system" {
		input.Set = append(input.Set, "values.global.istioNamespace="+namespace)
	}
	input.Set = append(input.Set, r.set...)
	if r.revision != "" && r.revision != "default" {
		input.Set = append(input.Set, "revision="+r.revision)
	}
	i, err := install.New(input)
	if err != nil {
		return nil, withHint(err, "the fields are those of IstioOperator; see what there is with: istioctl profile dump")
	}
	return i, nil
}

// maxInput bounds what is read of one file.
const maxInput = 1 << 20

func readFile(in io.Reader, name string) ([]byte, error) { return readUpTo(in, name, maxInput) }

// readUpTo reads a file, "-" being in, of so many bytes at most.
func readUpTo(in io.Reader, name string, most int64) ([]byte, error) {
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	content, err := io.ReadAll(io.LimitReader(in, most+1))
	if err == nil && int64(len(content)) > most {
		err = fmt.Errorf("more than %d bytes", most)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return content, nil
}

// An installCommand is one run of `istioctl install`.
type installCommand struct {
	connection
	rendering
	yes, dryRun, verify bool
	timeout             time.Duration

	out, errs io.Writer
}

func newInstall() *cobra.Command {
	var c installCommand
	cmd := &cobra.Command{
		Use: "install", Aliases: []string{"apply"}, Short: "Install the mesh, or change an installation", Args: arguments(cobra.NoArgs),
		Long: `Install the mesh, or change an installation.

Each run begins with the profile: an option that an earlier run had and this one has not is
the profile's again. What an earlier run put in and this one does not have is taken away.
Changes of the mesh configuration are in force at once, without restarts; those of
meshConfig.defaultConfig restart the gateways, and reach an application with its next pod.`,
		Example: `  istioctl install
  istioctl install --set profile=demo -y
  istioctl install --set meshConfig.accessLogFile=/dev/stdout
  istioctl install -f operator.yaml --set values.global.proxy.logLevel=debug`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.out, c.errs = cmd.OutOrStdout(), cmd.ErrOrStderr()
			return c.run(cmd.Context(), cmd.InOrStdin())
		},
	}
	set := cmd.Flags()
	c.connection.add(set)
	c.rendering.add(set)
	set.BoolVarP(&c.yes, "skip-confirmation", "y", false, "do not ask")
	set.BoolVar(&c.dryRun, "dry-run", false, "say what would be done, and do nothing")
	set.BoolVar(&c.verify, "verify", false, "look at each object afterwards, as verify-install does")
	set.DurationVar(&c.timeout, "readiness-timeout", 5*time.Minute, "how long each component may take to be ready")
	return cmd
}

// newUpgrade is `istioctl upgrade`: here installing again is no other thing.
func newUpgrade() *cobra.Command {
	cmd := newInstall()
	cmd.Use, cmd.Aliases, cmd.Short, cmd.Example = "upgrade", nil, "Change an installation to this version", "  istioctl upgrade -y"
	return cmd
}

func (c *installCommand) run(ctx context.Context, in io.Reader) error {
	api, machine, err := c.open(ctx)
	if err != nil {
		return err
	}
	i, err := c.render(in, c.istioNamespace, machine)
	if err != nil {
		return err
	}
	for _, w := range i.Warnings() {
		fmt.Fprintln(c.errs, "! "+w)
	}
	if !c.yes && !c.dryRun && !c.confirm(in, i) {
		fmt.Fprintln(c.out, "Cancelled.")
		return exitCode(1)
	}
	if c.dryRun {
		return c.tell(ctx, api, i)
	}
	if err := c.apply(ctx, api, i); err != nil {
		return err
	}
	fmt.Fprintln(c.out, "✔ Installation complete")
	if c.verify {
		return verifyInstalled(ctx, api, i, c.out)
	}
	return nil
}

// confirm asks whether to go on.
func (c *installCommand) confirm(in io.Reader, i *install.Installation) bool {
	var titles []string
	for _, component := range i.Components() {
		titles = append(titles, fmt.Sprintf("%q", component.Title))
	}
	return confirm(in, c.out, fmt.Sprintf("This will install the Istio %s %s profile with [%s] components into the cluster. Proceed? (y/N) ",
		wellknown.Version(), i.Profile(), strings.Join(titles, " ")))
}

// confirm asks a question; all but yes is no.
func confirm(in io.Reader, out io.Writer, question string) bool {
	fmt.Fprint(out, question)
	answer, err := bufio.NewReader(io.LimitReader(in, 100)).ReadString('\n')
	if err != nil { // the line of the question was not ended by who answers
		fmt.Fprintln(out)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true
	}
	return false
}

// apply installs one component after the other, and takes away what is no more.
func (c *installCommand) apply(ctx context.Context, api *cluster.Cluster, i *install.Installation) error {
	definitions, err := i.Definitions()
	if err != nil {
		return err
	}
	earlier, err := api.Installed(ctx, i.Revision())
	if err != nil {
		return err
	}
	var wanted []*unstructured.Unstructured
	for n, component := range i.Components() {
		objects := component.Objects
		if n == 0 {
			objects = append(definitions, objects...)
		}
		if err := c.component(ctx, api, component.Title, objects); err != nil {
			return err
		}
		wanted = append(wanted, component.Objects...)
	}
	gone := cluster.Surplus(earlier, wanted)
	if err := api.Delete(ctx, gone); err != nil {
		return fmt.Errorf("remove what is not installed any more: %w", err)
	}
	for _, o := range gone {
		fmt.Fprintln(c.out, "  Removed "+objectName(o)+".")
	}
	return nil
}

func (c *installCommand) component(ctx context.Context, api *cluster.Cluster, title string, objects []*unstructured.Unstructured) error {
	spin := spinner{w: c.errs}
	defer spin.end()
	spin.say("Processing resources for " + title + ".")
	err := api.Apply(ctx, objects)
	if err == nil {
		bounded, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		err = api.Wait(bounded, objects, func(what string) {
			spin.say(fmt.Sprintf("Processing resources for %s. Waiting for %s", title, cmp.Or(what, "the API")))
		})
	}
	spin.end()
	if err != nil {
		fmt.Fprintf(c.out, "✘ %s encountered an error: %v\n", title, err)
		return withHint(fmt.Errorf("%s: %w", title, err), "see: kubectl get pods -n "+cmp.Or(c.istioNamespace, "istio-system")+"; --readiness-timeout is how long it may take")
	}
	fmt.Fprintf(c.out, "✔ %s installed\n", title)
	return nil
}

// tell says what would be done.
func (c *installCommand) tell(ctx context.Context, api *cluster.Cluster, i *install.Installation) error {
	definitions, err := i.Definitions()
	if err != nil {
		return err
	}
	wanted, err := i.Objects()
	if err != nil {
		return err
	}
	for _, o := range append(definitions, wanted...) {
		word := "Would change"
		lacks, err := api.Lacks(ctx, o)
		if err != nil {
			return err
		}
		if lacks {
			word = "Would create"
		}
		fmt.Fprintf(c.out, "%s %s\n", word, objectName(o))
	}
	earlier, err := api.Installed(ctx, i.Revision())
	if err != nil {
		return err
	}
	for _, o := range cluster.Surplus(earlier, wanted) {
		fmt.Fprintf(c.out, "Would remove %s\n", objectName(o))
	}
	return nil
}

// objectName is KIND:NAMESPACE:NAME.
func objectName(o *unstructured.Unstructured) string {
	return o.GetKind() + ":" + o.GetNamespace() + ":" + o.GetName()
}

// A spinner is a line that is written over, on a terminal; elsewhere it is silent.
type spinner struct {
	w     io.Writer
	width int
}

func (s *spinner) say(text string) {
	if !isTerminal(s.w) {
		return
	}
	fmt.Fprintf(s.w, "\r- %-*s", s.width, text)
	s.width = max(s.width, len(text))
}

// end clears the line.
func (s *spinner) end() {
	if s.width > 0 {
		fmt.Fprintf(s.w, "\r%*s\r", s.width+2, "")
	}
	s.width = 0
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != ""
}
