package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
)

// MonitoringPort is where a control plane has its version and debug pages.
const MonitoringPort = 15014

const (
	askTime   = 10 * time.Second
	pageTime  = time.Minute // a dump of a large mesh
	maxAnswer = 16 << 20
)

// A ControlPlane is one running istiod.
type ControlPlane struct {
	Pod, Namespace, Revision, Version string
	Proxies                           []Proxy
}

// A Proxy is one that gets its configuration from a control plane.
type Proxy struct {
	ID      string `json:"proxy"`         // NAME.NAMESPACE
	Version string `json:"istio_version"` // "" where it did not say
}

// A PageError is an answer whose status is not 200.
type PageError struct {
	Code int    // HTTP status
	Text string // the begin of the body
}

// Error is the status and the text.
func (e *PageError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("%d %s %s", e.Code, http.StatusText(e.Code), e.Text))
}

// ControlPlanes asks the control planes that run in a namespace, of one revision or, with
// "", of all.
func (c *Cluster) ControlPlanes(ctx context.Context, namespace, revision string) ([]ControlPlane, error) {
	pods, err := c.ControlPods(ctx, namespace, revision)
	if err != nil {
		return nil, err
	}
	var all []ControlPlane
	for _, p := range pods {
		plane, err := c.ask(ctx, p)
		if err != nil {
			return all, fmt.Errorf("pod %s: %w", p.Name, err)
		}
		all = append(all, plane)
	}
	return all, nil
}

// ControlPods are the pods of the control planes that run in a namespace, of one revision or,
// with "", of all.
func (c *Cluster) ControlPods(ctx context.Context, namespace, revision string) ([]*corev1.Pod, error) {
	selector := "app=istiod"
	if revision != "" {
		selector += ",istio.io/rev=" + revision
	}
	pods, err := c.typed.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector, FieldSelector: "status.phase=Running"})
	if err != nil {
		return nil, err
	}
	var all []*corev1.Pod
	for i := range pods.Items {
		if pods.Items[i].DeletionTimestamp == nil {
			all = append(all, &pods.Items[i])
		}
	}
	return all, nil
}

// Page asks a port of a pod for a page of at most most bytes, as the pod's own loopback
// address gives it. The error holds the answer where its status is not 200.
func (c *Cluster) Page(ctx context.Context, pod *corev1.Pod, port int, method, path string, most int64) (body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, pageTime)
	defer cancel()
	err = c.forward(ctx, pod, port, func(base string) error {
		body, err = request(ctx, method, base+path, most)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("pod %s: port %d: %w", pod.Name, port, err)
	}
	return body, nil
}

func (c *Cluster) ask(ctx context.Context, pod *corev1.Pod) (ControlPlane, error) {
	plane := ControlPlane{Pod: pod.Name, Namespace: pod.Namespace, Revision: pod.Labels["istio.io/rev"]}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	err := c.forward(ctx, pod, MonitoringPort, func(base string) error {
		version, err := get(ctx, base+"/version")
		if err != nil {
			return err
		}
		plane.Version = strings.TrimSpace(string(version))
		proxies, err := get(ctx, base+"/debug/syncz")
		if err != nil {
			return err
		}
		return json.Unmarshal(proxies, &plane.Proxies)
	})
	return plane, err
}

// forward calls do with the URL of a port of this machine that leads to a pod's.
func (c *Cluster) forward(ctx context.Context, pod *corev1.Pod, port int, do func(base string) error) error {
	transport, upgrader, err := spdy.RoundTripperFor(c.config)
	if err != nil {
		return err
	}
	target := c.typed.CoreV1().RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("portforward").URL()
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, target)
	stop, ready := make(chan struct{}), make(chan struct{})
	f, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{fmt.Sprintf("0:%d", port)}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- f.ForwardPorts() }()
	defer func() {
		close(stop)
		<-ended
	}()
	select {
	case <-ready:
	case err := <-ended:
		ended <- nil // for who waits above
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
	ports, err := f.GetPorts()
	if err != nil {
		return err
	}
	base := url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", ports[0].Local)}
	return do(base.String())
}

func get(ctx context.Context, address string) ([]byte, error) {
	return request(ctx, http.MethodGet, address, maxAnswer)
}

func request(ctx context.Context, method, address string, most int64) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, address, nil)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	reply, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(io.LimitReader(reply.Body, most+1))
	if err == nil && reply.StatusCode != http.StatusOK {
		err = &PageError{Code: reply.StatusCode, Text: strings.TrimSpace(string(body[:min(len(body), 200)]))}
	}
	if err == nil && int64(len(body)) > most {
		err = fmt.Errorf("more than %d bytes", most)
	}
	return body, err
}
