package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"gantry/errdefs"
	"gantry/event"
	"gantry/network"

	"github.com/moby/moby/api/types/container"
	apinet "github.com/moby/moby/api/types/network"
)

// Update changes the limits and the restart policy of a container, running or not.
func (s *Service) Update(ctx context.Context, ref string, u container.UpdateConfig) error {
	c, err := s.Get(ref)
	if err != nil {
		return err
	}
	c.op.Lock()
	defer c.op.Unlock()
	rec := c.Record()
	if rec.State == Removing || rec.State == Dead {
		return errdefs.New(errdefs.Conflict, "cannot update container %s: container is marked for removal and cannot be \"update\"", rec.ID)
	}
	if err := container.ValidateRestartPolicy(u.RestartPolicy); err != nil {
		return errdefs.With(errdefs.InvalidParameter, err)
	}
	h := *rec.Host
	if u.RestartPolicy.Name != "" {
		if h.AutoRemove && !u.RestartPolicy.IsNone() {
			return errdefs.New(errdefs.InvalidParameter, "Restart policy cannot be updated because AutoRemove is enabled for the container")
		}
		h.RestartPolicy = u.RestartPolicy
	}
	if err := mergeResources(&h.Resources, &u.Resources); err != nil {
		return errdefs.With(errdefs.InvalidParameter, err)
	}
	if err := CheckResources(&h.Resources); err != nil {
		return err
	}
	if rec.State.alive() {
		task, err := c.runningTask()
		if err != nil {
			return err
		}
		if err := task.Update(ctx, ResourcesSpec(&h.Resources)); err != nil {
			return errdefs.New(errdefs.KindOf(err), "cannot update container %s: %w", rec.ID, err)
		}
	}
	saved := c.update(func(r *Record) { r.Host = &h })
	if err := s.save(saved); err != nil {
		return err
	}
	s.publish(&saved, "update", nil)
	return nil
}

// mergeResources takes over the limits that the update names.
func mergeResources(to, from *container.Resources) error {
	set := func(have *int64, want int64) {
		if want != 0 {
			*have = want
		}
	}
	if from.NanoCPUs > 0 && (to.CPUPeriod > 0 || to.CPUQuota > 0) || to.NanoCPUs > 0 && (from.CPUPeriod > 0 || from.CPUQuota > 0) {
		return errors.New("Conflicting options: Nano CPUs cannot be updated as CPU Period or Quota has already been set")
	}
	set(&to.CPUShares, from.CPUShares)
	set(&to.NanoCPUs, from.NanoCPUs)
	set(&to.CPUPeriod, from.CPUPeriod)
	set(&to.CPUQuota, from.CPUQuota)
	set(&to.CPURealtimePeriod, from.CPURealtimePeriod)
	set(&to.CPURealtimeRuntime, from.CPURealtimeRuntime)
	set(&to.MemoryReservation, from.MemoryReservation)
	if from.BlkioWeight != 0 {
		to.BlkioWeight = from.BlkioWeight
	}
	if from.CpusetCpus != "" {
		to.CpusetCpus = from.CpusetCpus
	}
	if from.CpusetMems != "" {
		to.CpusetMems = from.CpusetMems
	}
	if from.Memory != 0 {
		if from.MemorySwap == 0 && to.MemorySwap > 0 && from.Memory > to.MemorySwap {
			return errors.New("Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")
		}
		to.Memory = from.Memory
	}
	set(&to.MemorySwap, from.MemorySwap)
	if from.PidsLimit != nil {
		to.PidsLimit = from.PidsLimit
	}
	return nil
}

// Rename gives the container another name.
func (s *Service) Rename(ctx context.Context, ref, name string) error {
	c, err := s.Get(ref)
	if err != nil {
		return err
	}
	if name == "" {
		return errdefs.New(errdefs.InvalidParameter, "Neither old nor new names may be empty")
	}
	name, err = normalName(name)
	if err != nil {
		return err
	}
	c.op.Lock()
	defer c.op.Unlock()
	old := c.Name()
	if old == name {
		return errdefs.New(errdefs.InvalidParameter, "Renaming a container with the same name as its current name")
	}
	if _, err := s.reserve(c.ID(), name); err != nil {
		return fmt.Errorf("Error when allocating new name: %w", err)
	}
	saved := c.update(func(r *Record) { r.Name = name })
	if err := s.save(saved); err != nil {
		c.update(func(r *Record) { r.Name = old })
		s.release(name)
		return err
	}
	s.release(old)
	if saved.State.alive() && !saved.Host.NetworkMode.IsContainer() {
		if err := s.networks.Rename(ctx, saved.ID, name); err != nil && !notFound(err) {
			return err
		}
	}
	s.publish(&saved, "rename", map[string]string{"oldName": "/" + old})
	return nil
}

// Connect attaches a container to a further network, at once if it runs.
func (s *Service) Connect(ctx context.Context, ref, networkRef string, e *apinet.EndpointSettings) error {
	c, err := s.Get(ref)
	if err != nil {
		return err
	}
	nw, err := s.networks.Get(ctx, networkRef)
	if err != nil {
		return err
	}
	if e == nil {
		e = &apinet.EndpointSettings{}
	}
	c.op.Lock()
	defer c.op.Unlock()
	rec := c.Record()
	switch {
	case rec.Host.NetworkMode.IsContainer():
		return errdefs.New(errdefs.Conflict, "container sharing network namespace with another container or host cannot be connected to any other network")
	case rec.Host.NetworkMode.IsHost() || nw.Name == apinet.NetworkHost:
		return errdefs.New(errdefs.Conflict, "container sharing network namespace with another container or host cannot be connected to any other network")
	case rec.Networks[nw.Name] != nil && (rec.State.alive() || rec.Networks[nw.Name].NetworkID == nw.ID):
		return errdefs.New(errdefs.Forbidden, "endpoint with name %s already exists in network %s", rec.Name, nw.Name)
	case nw.Name == apinet.NetworkNone && len(rec.Networks) > 0, rec.Networks[apinet.NetworkNone] != nil && rec.State.alive():
		return errdefs.New(errdefs.Forbidden, "container cannot be connected to multiple networks with one of the networks in private (none) mode")
	}
	if err := checkEndpoint(nw.Name, e); err != nil {
		return err
	}
	e = e.Copy()
	e.NetworkID, e.EndpointID = nw.ID, ""
	static := len(e.MacAddress) > 0
	if rec.State.alive() {
		withMAC := rec
		withMAC.StaticMACs = map[string]bool{nw.Name: static}
		netns, err := os.Open("/proc/" + strconv.Itoa(rec.Pid) + "/ns/net")
		if err != nil {
			return errdefs.New(errdefs.Conflict, "container %s is not running: %w", rec.ID, err)
		}
		defer func() { _ = netns.Close() }() // a descriptor only
		ep, err := s.networks.Connect(ctx, rec.ID, netns, s.endpointConfig(&withMAC, nw.Name, e))
		if err != nil {
			return err
		}
		operational(e, &ep)
	}
	saved := c.update(func(r *Record) {
		networks := settings(r.Networks, nil)
		networks[nw.Name] = e
		r.Networks = networks
		macs := map[string]bool{nw.Name: static}
		for k, v := range r.StaticMACs {
			if k != nw.Name {
				macs[k] = v
			}
		}
		r.StaticMACs = macs
	})
	if err := s.save(saved); err != nil {
		return err
	}
	s.refreshHosts(ctx, &saved)
	s.publishNetwork("connect", nw, &saved)
	return nil
}

// Disconnect takes a container off a network, at once if it runs.
func (s *Service) Disconnect(ctx context.Context, ref, networkRef string, force bool) error {
	nw, err := s.networks.Get(ctx, networkRef)
	if err != nil {
		return err
	}
	c, err := s.Get(ref)
	if err != nil {
		if force {
			return s.networks.Disconnect(ctx, ref, nw.ID, true)
		}
		return err
	}
	c.op.Lock()
	defer c.op.Unlock()
	rec := c.Record()
	if rec.Host.NetworkMode.IsHost() {
		return errdefs.New(errdefs.Conflict, "container cannot be disconnected from host network or connected to host network")
	}
	if rec.Networks[nw.Name] == nil {
		return errdefs.New(errdefs.Forbidden, "container %s is not connected to network %s", rec.ID, nw.Name)
	}
	if rec.State.alive() {
		if err := s.networks.Disconnect(ctx, rec.ID, nw.ID, force); err != nil {
			return err
		}
	}
	saved := c.update(func(r *Record) {
		networks := settings(r.Networks, nil)
		delete(networks, nw.Name)
		r.Networks = networks
	})
	if err := s.save(saved); err != nil {
		return err
	}
	s.refreshHosts(ctx, &saved)
	s.publishNetwork("disconnect", nw, &saved)
	return nil
}

// refreshHosts writes a running container's /etc/hosts anew.
func (s *Service) refreshHosts(ctx context.Context, r *Record) {
	if !r.State.alive() {
		return
	}
	sb, err := s.networks.Sandbox(r.ID)
	if err == nil {
		err = s.sandboxes.Refresh(ctx, s.sandboxConfig(r), sb)
	}
	if err != nil {
		s.log.Warn("cannot write /etc/hosts of a container", "container", r.ID, "error", err)
	}
}

func (s *Service) publishNetwork(action string, nw *network.Network, r *Record) {
	s.events.Publish(event.Event{Type: event.Network, Action: action, ID: nw.ID, Attributes: map[string]string{"container": r.ID, "name": nw.Name, "type": nw.Driver}})
}
