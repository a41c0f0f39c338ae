//! Values under small numbers that are used again.
//!
//! Owns: the numbers. Must never: give one out twice at a time. Driven by the hub, for its streams, watchers and scopes.

/// Values by number. A number belongs to its value until that is removed.
#[derive(Debug)]
pub struct Slab<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Takes a value in.
    pub fn insert(&mut self, value: T) -> u32 {
        if let Some(number) = self.free.pop() {
            self.slots[number as usize] = Some(value);
            return number;
        }
        let number = u32::try_from(self.slots.len()).expect("bounded far below 2^32");
        self.slots.push(Some(value));
        number
    }

    /// Takes a value out.
    pub fn remove(&mut self, number: u32) -> T {
        let value = self.slots[number as usize].take().expect("a number is removed once");
        self.free.push(number);
        if self.free.len() == self.slots.len() {
            // The last one has gone: a crowd that came once does not leave its memory behind.
            *self = Self::default();
        }
        value
    }

    /// The numbers in use, ascending.
    pub fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        (0..).zip(&self.slots).filter_map(|(number, slot)| slot.as_ref().map(|_| number))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, number: u32) -> &T {
        self.slots[number as usize].as_ref().expect("a number in use")
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, number: u32) -> &mut T {
        self.slots[number as usize].as_mut().expect("a number in use")
    }
}
