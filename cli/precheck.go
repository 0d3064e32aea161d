package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lateen-mesh/lateen/control/analyze"
	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/install/cluster"
	"github.com/lateen-mesh/lateen/local"
)

// newExperimental is `istioctl experimental`.
func newExperimental() *cobra.Command {
	cmd := &cobra.Command{Use: "experimental", Aliases: []string{"x", "exp"}, Short: "Commands whose form may change", Args: cobra.ArbitraryArgs, RunE: noCommand}
	cmd.AddCommand(newPrecheck(), newAuthz(), newWait())
	return cmd
}

// oldestMinor is that of the oldest Kubernetes that is supported.
const oldestMinor = 26

// fine is said where nothing was found.
const fine = `✔ No issues found when checking the cluster. Istio is safe to install or upgrade!
  To get started, check out https://istio.io/latest/docs/setup/getting-started/
`

func newPrecheck() *cobra.Command {
	var c connection
	var form, threshold, from string
	var skip bool
	cmd := &cobra.Command{
		Use: "precheck", Short: "Check whether the mesh can be installed, or changed, in the cluster", Args: arguments(cobra.NoArgs),
		Long: `Check whether the mesh can be installed, or changed, in the cluster: its version, what the
user may create, and webhooks of other installations. Where there is no API to ask, it checks
whether this machine can run a mesh with pods.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if form != "log" {
				if err := checkForm(form); err != nil {
					return err
				}
			}
			least, err := analyze.ParseLevel(threshold)
			if err != nil {
				return wrongUsage(fmt.Errorf("--output-threshold: %w", err), "")
			}
			found, err := c.precheck(cmd.Context(), skip)
			if errors.Is(err, errNoAPI) && c.state == "" { // nobody runs a mesh here yet
				fmt.Fprintln(cmd.ErrOrStderr(), "There is no Kubernetes API yet; this machine is checked, for lateen up.")
				err = local.CanRunPods(cmd.Context(), "")
			}
			if err != nil {
				return err
			}
			found = slices.DeleteFunc(found, func(f analyze.Message) bool { return f.Level < least })
			return report(cmd.OutOrStdout(), cmd.ErrOrStderr(), found, form)
		},
	}
	set := cmd.Flags()
	c.add(set)
	set.BoolVar(&skip, "skip-controlplane", false, "do not ask whether a control plane may be installed")
	set.StringVarP(&from, "from-version", "f", "", "(accepted: there is no change between versions to warn of)")
	set.StringVarP(&form, "output", "o", "log", "log, json or yaml")
	set.StringVar(&threshold, "output-threshold", "Warning", "least level that is shown: Info, Warning or Error")
	return cmd
}

// report prints findings; with any of them the command fails.
func report(out, errs io.Writer, found []analyze.Message, form string) error {
	if form == "log" && len(found) == 0 {
		fmt.Fprint(errs, fine)
	}
	if err := printMessages(out, found, form, false); err != nil {
		return err
	}
	if len(found) > 0 {
		return withHint(errors.New("issues found when checking the cluster: Istio may not be safe to install or upgrade"),
			"each line above names what is wrong")
	}
	return nil
}

// precheck asks the API what could keep an installation from working.
func (c *connection) precheck(ctx context.Context, skipControlPlane bool) ([]analyze.Message, error) {
	api, err := c.connect()
	if err != nil {
		return nil, err
	}
	version, err := api.Reach(ctx)
	if err != nil {
		return nil, reachable(err)
	}
	var found []analyze.Message
	if !skipControlPlane {
		if minor, ok := minorOf(version); ok && minor < oldestMinor {
			found = append(found, analyze.New(analyze.UnsupportedKubernetesVersion, config.Key{}, config.Source{}, version, fmt.Sprintf("1.%d", oldestMinor)))
		}
		permissions, err := checkPermissions(ctx, api, c.istioNamespace)
		if err != nil {
			return nil, err
		}
		found = append(found, permissions...)
	}
	others, err := checkOthers(ctx, api)
	return append(found, others...), err
}

// minorOf reads v1.MINOR.PATCH.
func minorOf(version string) (int, bool) {
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(parts) < 2 || parts[0] != "1" {
		return 0, false
	}
	minor, err := strconv.Atoi(strings.TrimRight(parts[1], "+"))
	return minor, err == nil
}

// needed is what an installation creates.
var needed = []struct{ group, resource string }{
	{"", "namespaces"}, {"", "serviceaccounts"}, {"", "configmaps"}, {"", "services"}, {"apps", "deployments"},
	{"rbac.authorization.k8s.io", "clusterroles"}, {"rbac.authorization.k8s.io", "clusterrolebindings"},
	{"rbac.authorization.k8s.io", "roles"}, {"rbac.authorization.k8s.io", "rolebindings"},
	{"apiextensions.k8s.io", "customresourcedefinitions"}, {"admissionregistration.k8s.io", "mutatingwebhookconfigurations"},
	{"autoscaling", "horizontalpodautoscalers"}, {"policy", "poddisruptionbudgets"},
}

// checkPermissions asks whether the user may create what an installation needs.
func checkPermissions(ctx context.Context, api *cluster.Cluster, namespace string) ([]analyze.Message, error) {
	var found []analyze.Message
	for _, n := range needed {
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
			ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: "create", Group: n.group, Resource: n.resource}}}
		answer, err := api.API().AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
		if err != nil {
			return nil, fmt.Errorf("permission to create %s: %w", n.resource, err)
		}
		if answer.Status.Allowed {
			continue
		}
		reason := answer.Status.Reason
		if reason == "" {
			reason = "permission denied"
		}
		found = append(found, analyze.New(analyze.InsufficientPermissions, config.Key{}, config.Source{}, strings.TrimSuffix(n.resource+"."+n.group, "."), reason))
	}
	return found, nil
}

// checkOthers finds what another mesh has in the cluster and ours would fight with: webhooks
// that put a sidecar into the same pods.
func checkOthers(ctx context.Context, api *cluster.Cluster) ([]analyze.Message, error) {
	hooks, err := api.API().AdmissionregistrationV1().MutatingWebhookConfigurations().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("webhooks: %w", err)
	}
	owners := map[string]string{}
	var found []analyze.Message
	for _, h := range hooks.Items {
		for _, w := range h.Webhooks {
			if !strings.HasSuffix(w.Name, ".sidecar-injector.istio.io") || w.ClientConfig.Service == nil {
				continue
			}
			key := w.Name + " " + h.Labels["istio.io/rev"]
			if first, twice := owners[key]; twice {
				found = append(found, analyze.New(analyze.InvalidWebhook, config.Key{Kind: "MutatingWebhookConfiguration", Name: h.Name}, config.Source{},
					fmt.Sprintf("Webhook %s would put a second sidecar into the pods of %s", w.Name, first)))
			}
			owners[key] = h.Name
		}
	}
	return found, nil
}
