//! The launcher that started this process, according to its environment variables.
//!
//! | launcher | size | rank and size on the host |
//! | --- | --- | --- |
//! | Open MPI's `mpirun` | `OMPI_COMM_WORLD_SIZE` | `OMPI_COMM_WORLD_LOCAL_RANK`, `…_LOCAL_SIZE` |
//! | `mpiexec.hydra` (MPICH, Intel MPI) | `PMI_SIZE` | `MPI_LOCALRANKID`, `MPI_LOCALNRANKS` |
//! | Slurm's `srun` | `SLURM_STEP_NUM_TASKS` | determined from host names |
//! | another PMIx launcher (`PMIX_RANK`) | unknown | determined from host names |
//!
//! The size is compared with that of MPI. They differ if the MPI library belongs to another launcher: each
//! process is then rank 0 of 1.

use crate::RanksError;

/// MPI libraries that are likely to belong to a launcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Open MPI.
    OpenMpi,
    /// MPICH and its relatives.
    Mpich,
    /// Unknown.
    Unknown,
}

/// A launcher, and the values that it passed to this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launcher {
    /// Its name.
    pub name: &'static str,
    /// The libraries to try first.
    pub family: Family,
    /// Number of processes.
    pub size: Option<usize>,
    /// This process's index on its host, and the number of processes there.
    pub local: Option<(usize, usize)>,
}

impl Launcher {
    /// Detects the launcher of a process with these environment variables; `None` if it was started without
    /// one.
    pub fn detect(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, RanksError> {
        let number = |name: &str| variable(name)?.trim().parse::<usize>().ok();
        let pair = |rank, size| Some((number(rank)?, number(size)?)).filter(|(rank, size)| rank < size);
        let found = |name, family, size, local| Ok(Some(Self { name, family, size, local }));
        if let Some(size) = number("OMPI_COMM_WORLD_SIZE") {
            let local = pair("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE");
            return found("mpirun of Open MPI", Family::OpenMpi, Some(size), local);
        }
        let slurm = number("SLURM_STEP_NUM_TASKS");
        if let Some(size) = number("PMI_SIZE") {
            // Hydra may itself be started by srun, with one proxy per node. Only Hydra sets MPI_LOCALRANKID.
            let hydra = number("MPI_LOCALRANKID").is_some() || slurm.is_none();
            let name = if hydra { "mpiexec.hydra" } else { "srun (PMI)" };
            return found(name, Family::Mpich, Some(size), pair("MPI_LOCALRANKID", "MPI_LOCALNRANKS"));
        }
        let pmix = variable("PMIX_RANK").is_some();
        if let Some(size) = slurm {
            let (name, family) =
                if pmix { ("srun (PMIx)", Family::OpenMpi) } else { ("srun", Family::Unknown) };
            return found(name, family, Some(size), None);
        }
        if pmix {
            return found("a PMIx launcher", Family::OpenMpi, None, None);
        }
        match pair("RANK", "WORLD_SIZE") {
            Some((rank, size)) if size > 1 => Err(RanksError::Torchrun { rank, size }),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(variables: &[(&str, &str)]) -> Result<Option<Launcher>, RanksError> {
        Launcher::detect(|name| {
            variables.iter().find(|(other, _)| *other == name).map(|(_, value)| value.to_string())
        })
    }

    fn found(variables: &[(&str, &str)]) -> (&'static str, Option<usize>, Option<(usize, usize)>) {
        let launcher = detect(variables).unwrap().unwrap();
        (launcher.name, launcher.size, launcher.local)
    }

    #[test]
    fn launchers_are_recognised() {
        let open_mpi = [
            ("OMPI_COMM_WORLD_SIZE", "4"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "1"),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
            ("PMIX_RANK", "3"),
        ];
        assert_eq!(found(&open_mpi), ("mpirun of Open MPI", Some(4), Some((1, 2))));
        let hydra = [("PMI_SIZE", "4"), ("MPI_LOCALRANKID", "0"), ("MPI_LOCALNRANKS", "4")];
        assert_eq!(found(&hydra), ("mpiexec.hydra", Some(4), Some((0, 4))));
        assert_eq!(found(&[("SLURM_STEP_NUM_TASKS", "2")]), ("srun", Some(2), None));
        assert_eq!(
            found(&[("SLURM_STEP_NUM_TASKS", "2"), ("PMIX_RANK", "1")]),
            ("srun (PMIx)", Some(2), None)
        );
        assert_eq!(found(&[("SLURM_STEP_NUM_TASKS", "2"), ("PMI_SIZE", "2")]), ("srun (PMI)", Some(2), None));
        assert_eq!(found(&[("PMIX_RANK", "1")]), ("a PMIx launcher", None, None));
    }

    #[test]
    fn hydra_inside_slurm_is_hydra() {
        let variables = [("SLURM_STEP_NUM_TASKS", "2"), ("PMI_SIZE", "16"), ("MPI_LOCALRANKID", "3")];
        assert_eq!(found(&variables), ("mpiexec.hydra", Some(16), None));
    }

    #[test]
    fn a_plain_process_has_no_launcher() {
        assert_eq!(detect(&[]), Ok(None));
        assert_eq!(detect(&[("SLURM_NTASKS", "8"), ("SLURM_JOB_ID", "1")]), Ok(None)); // the script of sbatch
        assert_eq!(detect(&[("RANK", "0"), ("WORLD_SIZE", "1")]), Ok(None));
        assert_eq!(detect(&[("PMI_SIZE", "many")]), Ok(None));
    }

    #[test]
    fn torchrun_is_rejected() {
        let error = detect(&[("RANK", "1"), ("WORLD_SIZE", "4")]).unwrap_err();
        assert_eq!(error, RanksError::Torchrun { rank: 1, size: 4 });
        assert!(error.to_string().contains("torchrun"), "{error}");
        // An MPI launcher inside such a job takes precedence.
        assert!(detect(&[("RANK", "1"), ("WORLD_SIZE", "4"), ("PMI_SIZE", "2")]).unwrap().is_some());
    }
}
