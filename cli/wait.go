package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/local"
)

// A waiter is the flags of wait.
type waiter struct {
	connection
	condition           string
	generation, version string
	proxy               string
	threshold           float64
	timeout             time.Duration
	verbose             bool

	object config.Key // nothing: the whole mesh
}

// newMeshWait is `lateen wait`, which takes what kubectl's takes, too.
func newMeshWait(s Streams) *cobra.Command {
	return &cobra.Command{
		Use: "wait", Short: "Wait until proxies have what was written, or for a condition of objects", DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if condition, _ := takeFlag(args, "--for"); condition == "delete" || condition != "" && !slices.Contains(conditions, condition) {
				return kubectl(s, append([]string{"wait"}, args...))
			}
			own := newWait()
			own.Use, own.Short = "wait [GENERATION | KIND NAME[.NAMESPACE]]", "Wait until proxies have what was written"
			own.Long = `Wait until every connected proxy has what was written before the command was started, or a
generation of the mesh, or an object. A proxy of the mesh has it when it serves by it, any
other when it has accepted it. It ends at once when a proxy refuses a part of it.

With --for=delete, --for=condition=…, --for=jsonpath=… it is kubectl's wait.`
			own.Example = "  lateen wait\n  lateen wait 17\n  lateen wait virtualservice reviews.default\n  lateen wait --for=condition=Ready pod --all"
			root := &cobra.Command{Use: "lateen", SilenceErrors: true, SilenceUsage: true}
			root.SetFlagErrorFunc(flagError)
			root.AddCommand(own)
			root.SetArgs(append([]string{"wait"}, args...))
			root.SetIn(s.In)
			root.SetOut(s.Out)
			root.SetErr(s.Err)
			return root.ExecuteContext(cmd.Context())
		},
	}
}

// conditions are what --for takes; the original's names come first.
var conditions = []string{"distribution", "delete", "delivery", "deletion"}

// newWait is `istioctl experimental wait`.
func newWait() *cobra.Command {
	w := &waiter{}
	cmd := &cobra.Command{
		Use: "wait <type> <name>[.<namespace>]", Short: "Wait for an Istio resource",
		Long: "Waits for the specified condition to be true of an Istio resource.",
		Example: `  # Wait until the bookinfo virtual service has been distributed to all proxies in the mesh
  istioctl experimental wait --for=distribution virtualservice bookinfo.default

  # Wait until 99% of the proxies receive the distribution, timing out after 5 minutes
  istioctl experimental wait --for=distribution --threshold=.99 --timeout=300s virtualservice bookinfo.default`,
		Args: arguments(cobra.MaximumNArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := w.take(args); err != nil {
				return wrongUsage(err, "see: "+cmd.CommandPath()+" --help")
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), w.timeout)
			defer cancel()
			return w.wait(ctx, cmd)
		},
	}
	set := cmd.Flags()
	w.add(set)
	set.StringVar(&w.condition, "for", "distribution", "Wait condition, must be 'distribution' ('delivery') or 'delete' ('deletion')")
	set.DurationVar(&w.timeout, "timeout", 30*time.Second, "The duration to wait before failing")
	set.Float64Var(&w.threshold, "threshold", 1, "The ratio of distribution required for success")
	set.StringVar(&w.version, "resource-version", "", "Wait for a specific version of config to become current, rather than using whatever is latest in Kubernetes")
	set.StringVar(&w.generation, "generation", "", "Wait for a specific generation of config to become current, rather than using whatever is latest in Kubernetes")
	set.StringVar(&w.proxy, "proxy", "", "Name of a specific proxy to wait for the condition to be satisfied")
	set.BoolVarP(&w.verbose, "verbose", "v", false, "Enables verbose output")
	return cmd
}

// take reads the arguments.
func (w *waiter) take(args []string) error {
	if !slices.Contains(conditions, w.condition) {
		return fmt.Errorf("--for must be 'delete' or 'distribution', got: %s", w.condition)
	}
	if w.threshold < 0 || w.threshold > 1 {
		return fmt.Errorf("--threshold must be between 0 and 1, got: %v", w.threshold)
	}
	if w.generation != "" {
		if _, err := strconv.ParseUint(w.generation, 10, 63); err != nil {
			return fmt.Errorf("--generation must be a number, got: %s", w.generation)
		}
	}
	switch len(args) {
	case 0:
		return nil
	case 1:
		kind, name, ok := strings.Cut(args[0], "/")
		if !ok {
			if _, err := strconv.ParseUint(args[0], 10, 64); err != nil {
				return fmt.Errorf("%q is neither a generation nor a type and a name", args[0])
			}
			w.generation = args[0]
			return nil
		}
		args = []string{kind, name}
	}
	kind, err := kindOf(args[0])
	if err != nil {
		return err
	}
	name, namespace, _ := strings.Cut(args[1], ".")
	if namespace == "" {
		if namespace, err = w.namespaceInForce(); err != nil {
			namespace = "default"
		}
	}
	w.object = config.Key{Kind: kind, Namespace: namespace, Name: name}
	return nil
}

// kindOf finds a kind by its name as kubectl takes it.
func kindOf(name string) (config.Kind, error) {
	short := map[string]config.Kind{
		"vs": config.VirtualService, "dr": config.DestinationRule, "gw": config.Gateway, "se": config.ServiceEntry, "we": config.WorkloadEntry,
		"wg": config.WorkloadGroup, "pa": config.PeerAuthentication, "ra": config.RequestAuthentication, "ap": config.AuthorizationPolicy, "svc": config.Service,
	}
	plain := strings.ToLower(name)
	if k := short[plain]; k != "" {
		return k, nil
	}
	for _, r := range config.Resources() {
		if plain == strings.ToLower(string(r.Kind)) || plain == r.Plural() {
			return r.Kind, nil
		}
	}
	return "", fmt.Errorf("type %s is not recognized", name)
}

// A plane is a control plane that is asked about its proxies.
type plane struct {
	name string
	ask  func(ctx context.Context, query url.Values) (local.Delivery, error)
	last local.Delivery
}

// patience is how long a control plane waits before it says how far its proxies are.
const patience = time.Second

func (w *waiter) wait(ctx context.Context, cmd *cobra.Command) error {
	planes, api, err := w.planes(ctx)
	if err != nil {
		return err
	}
	query := url.Values{"proxyID": {w.proxy}}
	if w.object == (config.Key{}) {
		query.Set("generation", w.generation)
	} else {
		query.Set("object", fmt.Sprintf("%s/%s/%s", w.object.Kind, w.object.Namespace, w.object.Name))
		query.Set("gone", strconv.FormatBool(w.gone()))
		version, err := w.resourceVersion(ctx, api)
		if err != nil {
			return w.late(ctx, planes, err)
		}
		query.Set("resourceVersion", version)
	}
	for {
		for _, p := range planes {
			query.Set("timeout", max(0, min(patience, untilEnd(ctx))).String())
			if err := p.look(cmd.Context(), query); err != nil {
				return err
			}
			if w.verbose {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s: generation %d of %d: %d of %d proxies\n", p.name, p.last.Generation, p.last.Newest, p.last.Proxies-len(p.last.Late), p.last.Proxies)
			}
			if len(p.last.Refused) > 0 {
				return refusedBy(p.last.Refused[0])
			}
		}
		if present, all, enough := w.count(planes); enough {
			w.done(cmd, planes, present, all)
			return nil
		}
		if ctx.Err() != nil {
			return w.late(ctx, planes, ctx.Err())
		}
	}
}

func untilEnd(ctx context.Context) time.Duration {
	end, _ := ctx.Deadline() // it has one: --timeout
	return time.Until(end)
}

func (w *waiter) gone() bool { return strings.HasPrefix(w.condition, "delet") }

// look asks a control plane; once it has said which generation it is, for that one.
func (p *plane) look(ctx context.Context, query url.Values) error {
	if p.last.Generation > 0 && !p.last.Unread {
		query = url.Values{"timeout": query["timeout"], "proxyID": query["proxyID"], "generation": {strconv.FormatUint(p.last.Generation, 10)}}
	}
	d, err := p.ask(ctx, query)
	if err == nil {
		p.last = d
	}
	return err
}

// count are the proxies that have it, and all; enough is whether that will do.
func (w *waiter) count(planes []*plane) (present, all int, enough bool) {
	enough = true
	for _, p := range planes {
		enough = enough && !p.last.Unread && p.last.Newest >= p.last.Generation
		all += p.last.Proxies
		present += p.last.Proxies - len(p.last.Late)
	}
	return present, all, enough && float64(present) >= w.threshold*float64(all) && (w.proxy == "" || all > 0)
}

func (w *waiter) done(cmd *cobra.Command, planes []*plane, present, all int) {
	switch {
	case w.object == (config.Key{}):
		fmt.Fprintf(cmd.OutOrStdout(), "Generation %d present on %d out of %d proxies\n", planes[0].last.Generation, present, all)
	case w.gone():
		fmt.Fprintf(cmd.OutOrStdout(), "Resource %s deleted on %d out of %d sidecars\n", w.name(), present, all)
	default:
		fmt.Fprintf(cmd.OutOrStdout(), "Resource %s present on %d out of %d sidecars\n", w.name(), present, all)
	}
}

func (w *waiter) name() string {
	return fmt.Sprintf("%s/%s/%s", w.object.Kind, w.object.Namespace, w.object.Name)
}

func refusedBy(r local.ProxyRefusal) error {
	err := fmt.Errorf("proxy %s refused %s %s: %s", r.ID, r.Type, r.Resource, r.Error)
	if len(r.Objects) == 0 {
		return err
	}
	return withHint(err, "it is made from "+strings.Join(r.Objects, ", "))
}

// late is err, or where the time is over who is late.
func (w *waiter) late(ctx context.Context, planes []*plane, err error) error {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return err
	}
	err = errors.New("timeout expired before all proxies had it")
	if w.object != (config.Key{}) {
		err = fmt.Errorf("timeout expired before resource %s became effective on all sidecars", w.name())
	}
	for _, p := range planes {
		switch d := p.last; {
		case d.Unread && w.object != (config.Key{}):
			return withHint(err, p.name+" has not read it in that state; lateen status shows what is wrong with objects")
		case d.Newest < d.Generation:
			return withHint(err, fmt.Sprintf("generation %d is not built yet, the newest is %d", d.Generation, d.Newest))
		case w.proxy != "" && d.Proxies == 0:
			return withHint(err, fmt.Sprintf("no proxy %s is connected; proxies are named NAME.NAMESPACE", w.proxy))
		case len(d.Late) > 0:
			first := d.Late[0]
			return withHint(err, fmt.Sprintf("%d of %d are late; %s has generation %d of %d, and %s to come", len(d.Late), d.Proxies,
				first.ID, first.Generation, d.Generation, cmp.Or(strings.Join(first.Types, ", "), "everything")))
		}
	}
	return err
}

// planes are the control planes of the mesh, and how its API is reached: nil when it has none.
func (w *waiter) planes(ctx context.Context) ([]*plane, dynamic.Interface, error) {
	found, hasAPI, err := w.controlPlanes(ctx)
	if err != nil {
		return nil, nil, err
	}
	var all []*plane
	for _, p := range found {
		all = append(all, &plane{name: p.name, ask: func(ctx context.Context, query url.Values) (d local.Delivery, err error) {
			return d, p.read(ctx, http.MethodGet, "/debug/wait?"+query.Encode(), &d)
		}})
	}
	if !hasAPI {
		return all, nil, nil
	}
	api, err := w.dynamic()
	return all, api, err
}

func (w *waiter) dynamic() (dynamic.Interface, error) {
	config, err := w.config()
	if err != nil {
		return nil, err
	}
	return dynamic.NewForConfig(config)
}

// resourceVersion is the version of the object that control planes must have read, "" for any.
func (w *waiter) resourceVersion(ctx context.Context, api dynamic.Interface) (string, error) {
	if w.version != "" || w.gone() {
		return w.version, nil
	}
	if api == nil {
		if w.generation != "" {
			return "", wrongUsage(errors.New("--generation: objects of files have none"), "leave it out: what the files say now is waited for")
		}
		return "", nil
	}
	least, _ := strconv.ParseInt(w.generation, 10, 64)
	again := time.NewTicker(patience / 4)
	defer again.Stop()
	for {
		o, err := w.read(ctx, api)
		if err == nil && o.GetGeneration() >= least {
			return o.GetResourceVersion(), nil
		}
		if err != nil && w.generation == "" {
			return "", fmt.Errorf("unable to retrieve Kubernetes resource %s: %w", w.name(), err)
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-again.C:
		}
	}
}

func (w *waiter) read(ctx context.Context, api dynamic.Interface) (*unstructured.Unstructured, error) {
	for _, r := range config.Resources() {
		if r.Kind != w.object.Kind {
			continue
		}
		all := api.Resource(schema.GroupVersionResource{Group: r.Group, Version: r.Versions[0], Resource: r.Plural()})
		if r.Cluster {
			return all.Get(ctx, w.object.Name, metav1.GetOptions{})
		}
		return all.Namespace(w.object.Namespace).Get(ctx, w.object.Name, metav1.GetOptions{})
	}
	return nil, fmt.Errorf("type %s is not recognized", w.object.Kind)
}
