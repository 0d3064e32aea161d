package inject

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MaxReview bounds an AdmissionReview, in bytes: the API takes requests of up to 3 MiB.
const MaxReview = 4 << 20

// Versions of AdmissionReview; what they say of a pod is the same.
var reviewVersions = []string{"admission.k8s.io/v1", "admission.k8s.io/v1beta1"}

// A Verdict is what came of a review, for the log and the metrics.
type Verdict struct {
	Namespace, Pod string // Pod is a name, or the beginning of one that the API makes up
	Result         Result
	Err            error // why the pod was refused
}

// Review answers an AdmissionReview of a pod, in the version it came in. The base holds what
// is known beside the pod; labels looks up those of a namespace. An error means that body is
// no review: there is nobody to answer to. A pod that cannot be injected is refused in the
// answer, with the reason that its author will read.
func (s *Settings) Review(body []byte, base Request, labels func(namespace string) map[string]string) ([]byte, Verdict, error) {
	if len(body) > MaxReview {
		return nil, Verdict{}, fmt.Errorf("the review has more than %d bytes", MaxReview)
	}
	var review admissionv1.AdmissionReview // that of v1beta1 has the same fields
	if err := json.Unmarshal(body, &review); err != nil {
		return nil, Verdict{}, fmt.Errorf("no AdmissionReview: %w", err)
	}
	if review.Kind != "AdmissionReview" || review.APIVersion != reviewVersions[0] && review.APIVersion != reviewVersions[1] {
		return nil, Verdict{}, fmt.Errorf("no AdmissionReview of %s, but %q of %q", strings.Join(reviewVersions, " or "), review.Kind, review.APIVersion)
	}
	if review.Request == nil {
		return nil, Verdict{}, errors.New("the AdmissionReview has no request")
	}
	response, verdict := s.respond(review.Request, base, labels)
	response.UID = review.Request.UID
	answer, err := json.Marshal(admissionv1.AdmissionReview{TypeMeta: review.TypeMeta, Response: response})
	return answer, verdict, err
}

func (s *Settings) respond(r *admissionv1.AdmissionRequest, base Request, labels func(string) map[string]string) (*admissionv1.AdmissionResponse, Verdict) {
	verdict := Verdict{Namespace: r.Namespace, Pod: r.Name}
	if r.Kind.Group != "" || r.Kind.Kind != "Pod" || len(r.Object.Raw) == 0 {
		verdict.Result.Reason = "not a pod"
		return &admissionv1.AdmissionResponse{Allowed: true}, verdict
	}
	refused := func(err error) (*admissionv1.AdmissionResponse, Verdict) {
		verdict.Err = err
		return &admissionv1.AdmissionResponse{Result: &metav1.Status{
			Status: metav1.StatusFailure, Message: err.Error(), Reason: metav1.StatusReasonBadRequest, Code: http.StatusBadRequest,
		}}, verdict
	}
	pod := &corev1.Pod{}
	if err := json.Unmarshal(r.Object.Raw, pod); err != nil {
		return refused(fmt.Errorf("sidecar injection: the object is no Pod: %w", err))
	}
	if verdict.Pod == "" {
		verdict.Pod = pod.Name
	}
	if verdict.Pod == "" {
		verdict.Pod = pod.GenerateName
	}
	base.Pod, base.Namespace = pod, r.Namespace
	if labels != nil {
		base.NamespaceLabels = labels(r.Namespace)
	}
	result, err := s.Inject(base)
	if err != nil {
		return refused(fmt.Errorf("sidecar injection: %w", err))
	}
	verdict.Result = result
	response := &admissionv1.AdmissionResponse{Allowed: true, Warnings: result.Warnings}
	if !result.Injected {
		return response, verdict
	}
	if response.Patch, err = Patch(r.Object.Raw, pod, result.Pod); err != nil {
		return refused(fmt.Errorf("sidecar injection: %w", err))
	}
	kind := admissionv1.PatchTypeJSONPatch
	response.PatchType = &kind
	return response, verdict
}
