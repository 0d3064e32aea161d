package cli_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/lateen-mesh/lateen/cli"
	"github.com/lateen-mesh/lateen/test/api"
	"github.com/lateen-mesh/lateen/wellknown"
)

// TestInstall runs commands of istioctl against an API without a node. What needs pods that
// run is in test/pods/install.txtar.
func TestInstall(t *testing.T) {
	t.Setenv("KUBECONFIG", api.Start(t).Kubeconfig)
	version := wellknown.Version()
	for _, c := range []struct {
		name string
		line string
		in   string
		code int
		out  string // all of stdout; "…" at the end stands for more
		err  string // a part of stderr
	}{
		{"CL-017 precheck finds nothing", "x precheck", "", 0, "", "✔ No issues found when checking the cluster. Istio is safe to install or upgrade!\n  To get started, check out https://istio.io/latest/docs/setup/getting-started/\n"},
		{"CL-017 precheck as JSON", "experimental precheck -o json", "", 0, "[]\n", ""},
		{"CL-006 the question names version, profile and components, and no is no", "install", "n\n", 1,
			"This will install the Istio " + version + ` default profile with ["Istio core" "Istiod" "Ingress gateways"] components into the cluster. Proceed? (y/N) Cancelled.` + "\n", ""},
		{"CL-006 no answer is no", "install --set profile=minimal", "", 1,
			"This will install the Istio " + version + ` minimal profile with ["Istio core" "Istiod"] components into the cluster. Proceed? (y/N) ` + "\nCancelled.\n", ""},
		{"CL-006 nothing was installed", "uninstall --purge -y", "", 0, "There is nothing to remove.\n", ""},
		{"CL-006 yes is yes", "install --set profile=empty --set components.base.enabled=true", "yes\n", 0,
			"This will install the Istio " + version + ` empty profile with ["Istio core"] components into the cluster. Proceed? (y/N) ✔ Istio core installed` + "\n✔ Installation complete\n", ""},
		{"CL-006 -y does not ask", "apply --set profile=empty --set components.base.enabled=true --set values.base.enableIstioConfigCRDs=false -y", "", 0, "✔ Istio core installed\n✔ Installation complete\n", ""},
		{"CL-008 an upgrade", "upgrade --set profile=empty --set components.base.enabled=true --set values.base.enableIstioConfigCRDs=false --skip-confirmation", "", 0, "✔ Istio core installed\n✔ Installation complete\n", ""},
		{"CL-012 the old name", "manifest install --set profile=empty --set components.base.enabled=true --set values.base.enableIstioConfigCRDs=false -y", "", 0, "✔ Istio core installed\n✔ Installation complete\n", ""},
		{"CL-006 a dry run says what would be done", "install --set profile=empty --set components.base.enabled=true --dry-run --set values.base.enableIstioConfigCRDs=false", "", 0,
			"Would change Namespace::istio-system\nWould change ServiceAccount:istio-system:istio-reader-service-account\n", ""},
		{"CL-016 all is there", "verify-install --set profile=empty --set components.base.enabled=true", "", 0, "✔ CustomResourceDefinition: …", ""},
		{"CL-016 something is not", "verify-install", "", 1, "✔ CustomResourceDefinition: …", "error: Istio installation failed, incomplete or does not match what was asked for\nhint: "},
		{"CL-006 what never runs is an error with a reason", "install --set profile=minimal --set values.base.enableIstioConfigCRDs=false -y --readiness-timeout 3s", "", 1,
			"✔ Istio core installed\n✘ Istiod encountered an error: Deployment istio-system/istiod is not ready: pod istiod-…", "hint: see: kubectl get pods -n istio-system"},
		{"OP-018 CL-006 a path that there is not", "install -y --set meshConfig.acessLogFile=/dev/stdout", "", 1, "", `unknown field "acessLogFile"`},
		{"CL-007 what is to go must be said", "uninstall", "", 2, "", "at least one of --revision, --filename and --purge must be there"},
		{"CL-007 another revision's stays", "uninstall --revision canary -y", "", 0, "There is nothing to remove.\n", ""},
		{"CL-007 all of it goes", "uninstall --purge", "y\n", 0, "All Istio resources will be pruned from the cluster\nProceed? (y/N)   Removed MutatingWebhookConfiguration::istio-sidecar-injector.\n…", ""},
		{"CL-001 another context", "install -y --context none", "", 1, "", `context "none" does not exist`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			code := cli.Run(t.Context(), append([]string{"istioctl"}, strings.Fields(c.line)...), cli.Streams{In: strings.NewReader(c.in), Out: &out, Err: &errs})
			begin, open := strings.CutSuffix(c.out, "…")
			same := out.String() == c.out || open && strings.HasPrefix(out.String(), begin)
			if code != c.code || !same || !strings.Contains(errs.String(), c.err) {
				t.Errorf("istioctl %s: exit code %d, want %d\nout:\n%swant:\n%s\nerr:\n%swant in it:\n%s", c.line, code, c.code, &out, c.out, &errs, c.err)
			}
		})
	}
}
