package cluster

import (
	"context"
	"encoding/json"
	"errors"
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

// monitoringPort is where a control plane has its version and debug pages.
const monitoringPort = 15014

const (
	askTime   = 10 * time.Second
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

// ControlPlanes asks the control planes that run in a namespace, of one revision or, with
// "", of all.
func (c *Cluster) ControlPlanes(ctx context.Context, namespace, revision string) ([]ControlPlane, error) {
	selector := "app=istiod"
	if revision != "" {
		selector += ",istio.io/rev=" + revision
	}
	pods, err := c.typed.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector, FieldSelector: "status.phase=Running"})
	if err != nil {
		return nil, err
	}
	var all []ControlPlane
	for i := range pods.Items {
		p := &pods.Items[i]
		if p.DeletionTimestamp != nil {
			continue
		}
		plane, err := c.ask(ctx, p)
		if err != nil {
			return all, fmt.Errorf("pod %s: %w", p.Name, err)
		}
		all = append(all, plane)
	}
	return all, nil
}

func (c *Cluster) ask(ctx context.Context, pod *corev1.Pod) (ControlPlane, error) {
	plane := ControlPlane{Pod: pod.Name, Namespace: pod.Namespace, Revision: pod.Labels["istio.io/rev"]}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	err := c.forward(ctx, pod, monitoringPort, func(base string) error {
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
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	reply, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(io.LimitReader(reply.Body, maxAnswer+1))
	if err == nil && reply.StatusCode != http.StatusOK {
		err = errors.New(reply.Status)
	}
	if err == nil && len(body) > maxAnswer {
		err = fmt.Errorf("more than %d bytes", maxAnswer)
	}
	return body, err
}
