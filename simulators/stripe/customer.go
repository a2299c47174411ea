package stripe

// read sets what a request says of a customer.
func (u *customer) read(c *call) {
	for name, to := range map[string]*text{"name": &u.Name, "email": &u.Email, "phone": &u.Phone, "description": &u.Description} {
		if v := c.text(name, 5000); v != "" {
			*to = text(v)
		}
	}
	if l := c.texts("preferred_locales"); l != nil {
		u.PreferredLocales = l
	}
	u.Metadata = merge(u.Metadata, c.metadata("metadata"))
}

func createCustomer(c *call) (any, error) {
	u := &customer{ID: newID("customer"), Object: "customer", Created: c.now.Unix(), PreferredLocales: []string{}}
	u.read(c)
	if err := c.done(); err != nil {
		return nil, err
	}
	c.put(u)
	return u, c.emit("customer.created", u, nil)
}

func getCustomer(c *call) (any, error) {
	u, err := need[customer](c, "customer")
	if err != nil {
		return nil, err
	}
	if u.Sim.Deleted {
		return object{"id": u.ID, "object": "customer", "deleted": true}, c.done()
	}
	return u, c.done()
}

func updateCustomer(c *call) (any, error) {
	u, err := need[customer](c, "customer")
	if err == nil && u.Sim.Deleted {
		err = missing("customer", c.id, "id")
	}
	if err != nil {
		return nil, err
	}
	u.read(c)
	if err := c.done(); err != nil {
		return nil, err
	}
	c.put(u)
	return u, c.emit("customer.updated", u, object{})
}

// deleteCustomer forgets everything about a person but the id.
func deleteCustomer(c *call) (any, error) {
	u, err := need[customer](c, "customer")
	if err != nil {
		return nil, err
	}
	if err := c.done(); err != nil {
		return nil, err
	}
	gone := &customer{ID: u.ID, Object: u.Object, Created: u.Created}
	gone.Sim.Deleted = true
	c.put(gone)
	return object{"id": u.ID, "object": "customer", "deleted": true}, c.emit("customer.deleted", gone, nil)
}

func listCustomers(c *call) (any, error) {
	email, created := c.text("email", 800), c.created("created")
	return page[customer](c, func(u *customer) bool { return !u.Sim.Deleted && is(email, u.Email) && created(u.Created) })
}
