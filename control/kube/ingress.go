package kube

import (
	"context"
	"encoding/json"
	"fmt"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lateen-mesh/lateen/control/config"
)

// Balance has the status of an Ingress say at which addresses it is reached.
func (s *Source) Balance(ctx context.Context, ingress config.Key, at []networkingv1.IngressLoadBalancerIngress) error {
	s.mu.Lock()
	r := s.shelves[config.Ingress].reading
	s.mu.Unlock()
	client, err := s.client.rest(r)
	if err != nil {
		return err
	}
	if at == nil {
		at = []networkingv1.IngressLoadBalancerIngress{} // null would keep a merge from emptying the list
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"loadBalancer": map[string]any{"ingress": at}}})
	if err != nil {
		return err
	}
	err = client.Patch(types.MergePatchType).Namespace(ingress.Namespace).Resource(r.resource).Name(ingress.Name).
		SubResource("status").Body(patch).Do(ctx).Error()
	if err != nil {
		return fmt.Errorf("%s: status: %w", ingress, err)
	}
	return nil
}
