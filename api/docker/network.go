package docker

import (
	"cmp"
	"maps"
	"net"
	"net/http"
	"strings"

	api "github.com/moby/moby/api/types/network"

	"gantry/errdefs"
	"gantry/network"
)

// networkRoutes registers the endpoints of networks.
func (s *Server) networkRoutes(add func(method, pattern string, h Handler)) {
	add(http.MethodGet, "/networks", s.networkList)
	add(http.MethodGet, "/networks/", s.networkList)
	add(http.MethodGet, "/networks/{id...}", s.networkInspect)
	add(http.MethodPost, "/networks/create", s.networkCreate)
	add(http.MethodPost, "/networks/prune", s.networkPrune)
	add(http.MethodPost, "/networks/{id...}/connect", s.networkConnect)
	add(http.MethodPost, "/networks/{id...}/disconnect", s.networkDisconnect)
	add(http.MethodDelete, "/networks/{id...}", s.networkRemove)
}

// networkJSON is a network in docker's shape.
func networkJSON(n *network.Network) api.Network {
	j := api.Network{
		Name: n.Name, ID: n.ID, Created: n.Created, Scope: n.Scope, Driver: n.Driver,
		EnableIPv4: n.EnableIPv4, EnableIPv6: n.EnableIPv6,
		IPAM:     api.IPAM{Driver: n.IPAM.Driver, Options: n.IPAM.Options, Config: []api.IPAMConfig{}},
		Internal: n.Internal, Attachable: n.Attachable, Ingress: n.Ingress,
		Options: orEmpty(n.Options), Labels: orEmpty(n.Labels),
	}
	for _, c := range n.IPAM.Config {
		j.IPAM.Config = append(j.IPAM.Config, api.IPAMConfig{Subnet: c.Subnet, IPRange: c.IPRange, Gateway: c.Gateway, AuxAddress: c.Aux})
	}
	return j
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// networkDetails adds the containers that have joined.
func (s *Server) networkDetails(n *network.Network) api.Inspect {
	j := api.Inspect{Network: networkJSON(n), Containers: map[string]api.EndpointResource{}}
	for _, sandbox := range s.engine.Networks.Sandboxes(n.ID) {
		for _, e := range sandbox.Endpoints {
			if e.NetworkID != n.ID {
				continue
			}
			mac, _ := net.ParseMAC(e.MAC) // "" on networks without addresses
			j.Containers[sandbox.ID] = api.EndpointResource{
				Name: sandbox.Name, EndpointID: e.EndpointID, MacAddress: api.HardwareAddr(mac),
				IPv4Address: e.IPv4, IPv6Address: e.IPv6,
			}
		}
	}
	return j
}

func predefined(n *network.Network) bool {
	return n.Name == network.Bridge || n.Name == network.Host || n.Name == network.None
}

// networkFilter returns the condition of docker's filters for networks.
func (s *Server) networkFilter(f Filters) (func(*network.Network) bool, error) {
	unused, err := f.Bool("dangling", false)
	if err != nil {
		return nil, err
	}
	for _, kind := range f.Get("type") {
		if kind != "builtin" && kind != "custom" {
			return nil, errdefs.New(errdefs.InvalidParameter, "invalid filter: 'type'='%s'", kind)
		}
	}
	return func(n *network.Network) bool {
		if f.Has("dangling") && unused == (predefined(n) || len(s.engine.Networks.Sandboxes(n.ID)) > 0) {
			return false
		}
		if f.Has("type") && !f["type"]["builtin"] && predefined(n) || f.Has("type") && !f["type"]["custom"] && !predefined(n) {
			return false
		}
		return f.Exact("driver", n.Driver) && f.Exact("scope", n.Scope) && f.Match("name", n.Name) && f.Match("id", n.ID) && f.Labels("label", n.Labels)
	}, nil
}

func (s *Server) networkList(w http.ResponseWriter, r *http.Request) error {
	filters, err := FiltersOf(r, "dangling", "driver", "id", "label", "name", "scope", "type")
	if err != nil {
		return err
	}
	matches, err := s.networkFilter(filters)
	if err != nil {
		return err
	}
	networks, err := s.engine.Networks.List(r.Context())
	if err != nil {
		return err
	}
	list := []api.Inspect{}
	for _, n := range networks {
		if !matches(n) {
			continue
		}
		if VersionOf(r) < 28 { // whose list had the containers
			list = append(list, s.networkDetails(n))
		} else {
			list = append(list, api.Inspect{Network: networkJSON(n), Containers: map[string]api.EndpointResource{}})
		}
	}
	return WriteJSON(w, http.StatusOK, networksFor(VersionOf(r), list))
}

func (s *Server) networkInspect(w http.ResponseWriter, r *http.Request) error {
	n, err := s.engine.Networks.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	if scope := r.Form.Get("scope"); scope != "" && scope != n.Scope {
		return errdefs.New(errdefs.NotFound, "network %s not found", r.PathValue("id"))
	}
	return WriteJSON(w, http.StatusOK, networkFor(VersionOf(r), s.networkDetails(n)))
}

func (s *Server) networkCreate(w http.ResponseWriter, r *http.Request) error {
	request := struct {
		api.CreateRequest
		CheckDuplicate bool // of API versions before 1.44: names are always unique here
	}{}
	if err := ReadJSON(w, r, &request); err != nil {
		return err
	}
	switch {
	case request.ConfigOnly || request.ConfigFrom != nil && request.ConfigFrom.Network != "":
		return errdefs.New(errdefs.NotImplemented, "config-only networks are not supported yet")
	case request.Ingress || request.Scope == "swarm" || request.Driver == "overlay":
		return errdefs.New(errdefs.Unavailable, "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.")
	}
	c := network.CreateConfig{
		Name: request.Name, Driver: request.Driver, EnableIPv4: request.EnableIPv4, EnableIPv6: request.EnableIPv6,
		Internal: request.Internal, Attachable: request.Attachable, Options: request.Options, Labels: request.Labels,
	}
	if VersionOf(r) < 48 {
		c.EnableIPv4 = nil
	}
	driver := cmp.Or(c.Driver, network.Bridge)
	if defaults := s.options.Settings().NetworkOptions[driver]; len(defaults) > 0 {
		c.Options = maps.Clone(defaults)
		maps.Copy(c.Options, request.Options)
	}
	if request.IPAM != nil {
		c.IPAM = network.IPAM{Driver: request.IPAM.Driver, Options: request.IPAM.Options}
		for _, i := range request.IPAM.Config {
			c.IPAM.Config = append(c.IPAM.Config, network.IPAMConfig{Subnet: i.Subnet, IPRange: i.IPRange, Gateway: i.Gateway, Aux: i.AuxAddress})
		}
	}
	n, err := s.engine.Networks.Create(r.Context(), c)
	if err != nil {
		return err
	}
	return WriteJSON(w, http.StatusCreated, api.CreateResponse{ID: n.ID})
}

func (s *Server) networkRemove(w http.ResponseWriter, r *http.Request) error {
	if err := s.engine.Networks.Remove(r.Context(), r.PathValue("id")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) networkPrune(w http.ResponseWriter, r *http.Request) error {
	filters, err := FiltersOf(r, "label", "label!", "until")
	if err != nil {
		return err
	}
	match, err := networksToPrune(filters)
	if err != nil {
		return err
	}
	deleted, err := s.engine.Networks.Prune(r.Context(), match)
	if err != nil {
		return err
	}
	return WriteJSON(w, http.StatusOK, api.PruneReport{NetworksDeleted: deleted})
}

func (s *Server) networkConnect(w http.ResponseWriter, r *http.Request) error {
	var request api.ConnectRequest
	if err := ReadJSON(w, r, &request); err != nil {
		return err
	}
	if strings.TrimSpace(request.Container) == "" {
		return errdefs.New(errdefs.InvalidParameter, "invalid container name or ID: value is empty")
	}
	return s.connect(r, request)
}

func (s *Server) networkDisconnect(w http.ResponseWriter, r *http.Request) error {
	var request api.DisconnectRequest
	if err := ReadJSON(w, r, &request); err != nil {
		return err
	}
	if strings.TrimSpace(request.Container) == "" {
		return errdefs.New(errdefs.InvalidParameter, "invalid container name or ID: value is empty")
	}
	return s.disconnect(r, request)
}

func networksToPrune(f Filters) (func(*network.Network) bool, error) {
	until, err := untilOf(f)
	if err != nil {
		return nil, err
	}
	return func(n *network.Network) bool {
		return f.pruneLabels(n.Labels) && (until.IsZero() || !n.Created.After(until))
	}, nil
}
