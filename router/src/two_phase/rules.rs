//! Which databases can be parts of one transaction.

use crate::databases::Database;

/// What a database can do in a transaction over several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ability {
    /// It can prepare its part, and be home too.
    Prepares,
    /// It can only be home, for this reason.
    OnlyDecides(String),
    /// Neither, for this reason.
    Nothing(String),
}

impl Ability {
    pub(crate) fn of(database: &Database) -> Self {
        let alias = database.alias();
        if !database.is_sqlite() {
            return match database.driver().prepares() {
                Some(false) => Self::OnlyDecides(format!(
                    "`{alias}` can't prepare a transaction while `max_prepared_transactions` is 0 (set it to at least the \
                     number of connections, and restart PostgreSQL)"
                )),
                _ => Self::Prepares,
            };
        }
        if database.is_in_memory() {
            return Self::Nothing(format!("`{alias}` is in memory, where nothing survives that others would ask for"));
        }
        Self::OnlyDecides(format!("`{alias}` is SQLite, which can't prepare a transaction"))
    }

    /// Why it can't be a part that prepares.
    pub(crate) fn objection(&self) -> Option<&str> {
        match self {
            Self::Prepares => None,
            Self::OnlyDecides(why) | Self::Nothing(why) => Some(why),
        }
    }
}

/// Which of the databases is home: the one that can't prepare, else the first. An error says why there is none.
pub(crate) fn home(abilities: &[Ability]) -> Result<usize, String> {
    if let Some(Ability::Nothing(why)) = abilities.iter().find(|ability| matches!(ability, Ability::Nothing(_))) {
        return Err(why.clone());
    }
    let mut unable = abilities.iter().enumerate().filter(|(_, ability)| **ability != Ability::Prepares);
    match (unable.next(), unable.next()) {
        (None, _) => Ok(0),
        (Some((home, _)), None) => Ok(home),
        (Some((_, first)), Some((_, second))) => {
            Err([first, second].map(|ability| ability.objection().unwrap_or_default()).join(", and "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_is_the_one_that_cannot_prepare_else_the_first() {
        let unable = || Ability::OnlyDecides("`a` can't".into());
        assert_eq!(home(&[Ability::Prepares, Ability::Prepares]), Ok(0));
        assert_eq!(home(&[Ability::Prepares, unable(), Ability::Prepares]), Ok(1));
        assert_eq!(home(&[unable(), Ability::Prepares, unable()]), Err("`a` can't, and `a` can't".into()));
        assert_eq!(home(&[Ability::Prepares, Ability::Nothing("`m` is".into())]), Err("`m` is".into()));
    }
}
