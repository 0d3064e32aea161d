package cluster_test

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/lateen-mesh/lateen/install"
	"github.com/lateen-mesh/lateen/install/cluster"
	"github.com/lateen-mesh/lateen/test/api"
	"github.com/lateen-mesh/lateen/test/ports"
)

// connect runs an API and connects to it.
func connect(t *testing.T) *cluster.Cluster {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", api.Start(t).Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	c, err := cluster.Connect(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func render(t *testing.T, in install.Input) []*unstructured.Unstructured {
	t.Helper()
	i, err := install.New(in)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := i.Objects()
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func names(objects []*unstructured.Unstructured) string {
	var all []string
	for _, o := range objects {
		all = append(all, o.GetKind()+" "+o.GetName())
	}
	return strings.Join(all, "\n")
}

func TestRoundTrip(t *testing.T) {
	c := connect(t)
	ctx := t.Context()
	both, one := render(t, install.Input{Profile: "demo"}), render(t, install.Input{Set: []string{"meshConfig.outboundTrafficPolicy.mode=REGISTRY_ONLY"}})

	t.Run("CL-006 what is applied is there, in a namespace that was not", func(t *testing.T) {
		if err := c.Apply(ctx, both); err != nil {
			t.Fatal(err)
		}
		there, err := c.Installed(ctx, "default")
		if err != nil {
			t.Fatal(err)
		}
		if missing := cluster.Surplus(both, there); names(missing) != "Namespace istio-system" {
			t.Errorf("missing: %s", names(missing))
		}
	})
	t.Run("CL-006 another run changes what is there in place", func(t *testing.T) {
		before, err := c.API().AppsV1().Deployments("istio-system").Get(ctx, "istiod", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Apply(ctx, one); err != nil {
			t.Fatal(err)
		}
		m, err := c.API().CoreV1().ConfigMaps("istio-system").Get(ctx, "istio", metav1.GetOptions{})
		if err != nil || !strings.Contains(m.Data["mesh"], "mode: REGISTRY_ONLY") {
			t.Errorf("mesh %v, %v", m.Data, err)
		}
		after, err := c.API().AppsV1().Deployments("istio-system").Get(ctx, "istiod", metav1.GetOptions{})
		if err != nil || after.UID != before.UID {
			t.Errorf("another Deployment: %v", err)
		}
	})
	t.Run("CL-006 what a run does not have any more goes", func(t *testing.T) {
		there, err := c.Installed(ctx, "default")
		if err != nil {
			t.Fatal(err)
		}
		gone := cluster.Surplus(there, one)
		if !strings.Contains(names(gone), "Deployment istio-egressgateway") || strings.Contains(names(gone), "istiod") {
			t.Errorf("to go: %s", names(gone))
		}
		if err := c.Delete(ctx, gone); err != nil {
			t.Fatal(err)
		}
		if lacks, err := c.Lacks(ctx, gone[0]); err != nil || !lacks {
			t.Errorf("still there: %v", err)
		}
	})
	t.Run("CL-016 waiting says what is not ready", func(t *testing.T) {
		short, cancel := context.WithCancel(ctx)
		var told []string
		err := c.Wait(short, one, func(what string) {
			told = append(told, what)
			cancel()
		})
		if err == nil || !strings.Contains(err.Error(), "Deployment istio-system/istiod is not ready") || len(told) != 1 {
			t.Errorf("error %v, told %q", err, told)
		}
		bad, err := c.Unhealthy(ctx, one)
		if err != nil || len(bad) != 2 {
			t.Errorf("unhealthy %v, %v", bad, err)
		}
	})
	t.Run("CL-006 the API of one machine says where its sockets are, a cluster nothing", func(t *testing.T) {
		if l, err := c.Local(ctx); l != nil || err != nil {
			t.Errorf("in a cluster: %v, %v", l, err)
		}
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "lateen-engine"}, Data: map[string]string{"sockets": "/s", "control": "/c", "httpPort": "8080", "httpsPort": "443"}}
		if _, err := c.API().CoreV1().ConfigMaps("kube-system").Create(ctx, m, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if l, err := c.Local(ctx); err != nil || *l != (install.Local{Sockets: "/s", Control: "/c", HTTPPort: 8080, HTTPSPort: 443}) {
			t.Errorf("on one machine: %+v, %v", l, err)
		}
	})
	t.Run("CL-007 uninstalling leaves the namespace and what is not ours", func(t *testing.T) {
		there, err := c.Installed(ctx, "")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Delete(ctx, there); err != nil {
			t.Fatal(err)
		}
		if err := c.Delete(ctx, there); err != nil {
			t.Errorf("a second time: %v", err)
		}
		if rest, err := c.Installed(ctx, ""); err != nil || len(rest) > 0 {
			t.Errorf("left: %s, %v", names(rest), err)
		}
		if _, err := c.API().CoreV1().Namespaces().Get(ctx, "istio-system", metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
	})
}

func TestNobodyAnswers(t *testing.T) {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(ports.One()))
	c, err := cluster.Connect(&rest.Config{Host: "http://" + address})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Reach(t.Context()); !errors.Is(err, cluster.ErrAway) {
		t.Errorf("error %v, want ErrAway", err)
	}
}
